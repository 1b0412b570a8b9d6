//! Which files are the configuration: shared by the subcommands that read it.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{self, Loaded, Report};

/// The default configuration file.
const DEFAULT_CONFIG: &str = "/etc/maitred/maitred.yaml";

/// Where the configuration is; shared by the subcommands that read it.
#[derive(Args, Debug)]
pub struct ConfigFiles {
    /// Configuration file; may be given several times; `-` is standard input; default: /etc/maitred/maitred.yaml
    #[arg(long, value_name = "FILE", env = "MAITRED_CONFIG")]
    pub config: Vec<PathBuf>,
}

impl ConfigFiles {
    pub fn paths(&self) -> Vec<PathBuf> {
        if self.config.is_empty() { vec![DEFAULT_CONFIG.into()] } else { self.config.clone() }
    }

    /// Whether no file is given and the default one does not exist.
    pub fn are_absent(&self) -> bool {
        // A file that may exist must be read, and its error shown.
        self.config.is_empty() && matches!(Path::new(DEFAULT_CONFIG).try_exists(), Ok(false))
    }

    pub fn load(&self) -> Result<Loaded, Report> {
        let sources = config::read_sources(&self.paths())?;
        config::load(&sources, &|name| std::env::var(name).ok())
    }
}
