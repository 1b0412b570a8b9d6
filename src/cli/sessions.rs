//! `maitred sessions kill`: ends open sessions and flows of a running maitred.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::ask::{Where, percent};

/// End open sessions and flows
#[derive(Args, Debug)]
pub struct Sessions {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Reset, on both sides, the sessions that match every given option; flows end
    #[command(group = clap::ArgGroup::new("which").required(true).multiple(true))]
    Kill {
        /// The session or flow with this id, as `maitred show sessions` shows it
        #[arg(group = "which", conflicts_with_all = ["pool", "backend", "client"])]
        id: Option<u64>,
        /// Sessions and flows of this pool
        #[arg(long, group = "which")]
        pool: Option<String>,
        /// Sessions and flows on the backend with this name
        #[arg(long, group = "which")]
        backend: Option<String>,
        /// Sessions and flows of the client with this IP address
        #[arg(long, group = "which")]
        client: Option<IpAddr>,
        #[command(flatten)]
        at: Where,
    },
}

impl Sessions {
    pub fn run(&self) -> ExitCode {
        let What::Kill { id, pool, backend, client, at } = &self.what;
        let path = match id {
            Some(id) => format!("/api/v1/sessions/{id}"),
            None => {
                let client = client.map(|client| client.to_string());
                let pairs = [("pool", pool), ("backend", backend), ("client", &client)];
                let given = pairs.iter().filter_map(|(key, value)| {
                    value.as_ref().map(|value| format!("{key}={}", percent(value)))
                });
                format!("/api/v1/sessions?{}", given.collect::<Vec<_>>().join("&"))
            }
        };
        match at.json("DELETE", &path, None) {
            Ok(answer) => {
                super::output::print(&format!(
                    "{} killed\n",
                    answer["killed"].as_u64().unwrap_or(0)
                ));
                ExitCode::SUCCESS
            }
            Err(error) => error.report(),
        }
    }
}
