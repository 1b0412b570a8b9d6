//! The products: none at all, two minimal relays, the balancers of others, maitred, and where their programs are. Their
//! configurations are in `setup`; `running` starts them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::flags::Flags;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    Direct,
    Envoy,
    HAProxy,
    HAProxySplice,
    Maitred,
    MaitredBackends,
    MaitredBefore,
    MaitredBusy,
    MaitredLeast,
    MaitredLeastMany,
    MaitredPools,
    MaitredPorts,
    Nginx,
    Nginx64K,
    RelayCopy,
    RelaySplice,
}

use Product::*;

const NAMES: [(Product, &str); 16] = [
    (Direct, "direct"),
    (RelayCopy, "relay-copy"),
    (RelaySplice, "relay-splice"),
    (HAProxy, "haproxy"),
    (HAProxySplice, "haproxy-splice"),
    (Nginx, "nginx"),
    (Nginx64K, "nginx-64k"),
    (Envoy, "envoy"),
    (Maitred, "maitred"),
    (MaitredBefore, "maitred-before"),
    (MaitredBusy, "maitred-busy"),
    (MaitredPorts, "maitred-4000-ports"),
    (MaitredPools, "maitred-1000-pools"),
    (MaitredBackends, "maitred-5000-backends"),
    (MaitredLeast, "maitred-least-conn"),
    (MaitredLeastMany, "maitred-least-conn-5000"),
];

/// Where the programs are; one that is not there is not compared.
pub struct Tools {
    pub maitred: PathBuf,
    /// Another maitred, to see what a change did.
    pub before: Option<PathBuf>,
    pub haproxy: PathBuf,
    pub nginx: PathBuf,
    /// Rather than in a module.
    pub nginx_has_stream: bool,
    pub envoy: PathBuf,
    /// Configurations and logs of this comparison.
    pub dir: PathBuf,
}

impl Tools {
    pub fn new(flags: &Flags) -> Result<Tools, String> {
        let path = |name, default| PathBuf::from(flags.text(name).unwrap_or(default));
        let nginx = path("nginx", "nginx");
        let built = Command::new(&nginx).arg("-V").output().map(|output| output.stderr);
        let built = String::from_utf8_lossy(&built.unwrap_or_default()).into_owned();
        Ok(Tools {
            maitred: path("maitred", "maitred"),
            before: flags.text("before").map(PathBuf::from),
            haproxy: path("haproxy", "haproxy"),
            nginx_has_stream: built.split_whitespace().any(|word| word == "--with-stream"),
            nginx,
            envoy: path("envoy", "envoy"),
            dir: PathBuf::from(flags.needed::<String>("dir")?),
        })
    }
}

impl Product {
    pub fn named(name: &str) -> Result<Product, String> {
        let names = || NAMES.map(|(_, name)| name).join(", ");
        let found = NAMES.iter().find(|(_, its)| *its == name).map(|(product, _)| *product);
        found.ok_or_else(|| format!("`{name}` is none of {}", names()))
    }

    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(product, _)| *product == self).map_or("?", |(_, name)| name)
    }

    pub fn is_maitred(self) -> bool {
        self.name().starts_with("maitred")
    }

    /// The program, if it is one of others.
    pub fn program(self, tools: &Tools) -> Option<&Path> {
        match self {
            Envoy => Some(&tools.envoy),
            HAProxy | HAProxySplice => Some(&tools.haproxy),
            Nginx | Nginx64K => Some(&tools.nginx),
            Direct | RelayCopy | RelaySplice => None,
            MaitredBefore => tools.before.as_deref(),
            _ => Some(&tools.maitred),
        }
    }

    /// As the product says it; an error if it is not there.
    pub fn version(self, tools: &Tools) -> Result<String, String> {
        let Some(program) = self.program(tools) else {
            return Ok(if self == Direct { "no balancer" } else { "in bench/load" }.to_owned());
        };
        let mut command = Command::new(program);
        command.arg(match self {
            Envoy => "--version",
            HAProxy | HAProxySplice | Nginx | Nginx64K => "-v",
            _ => "version",
        });
        let output = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let line = line.trim_start_matches("nginx version: ").trim();
        Ok(line.rsplit_once("version: ").map_or(line, |(_, version)| version).to_owned())
    }

    /// What it had to say when something went wrong.
    pub fn said(self, tools: &Tools) -> String {
        let read = |end: &str| {
            fs::read_to_string(tools.dir.join(format!("{}.{end}", self.name()))).unwrap_or_default()
        };
        format!("{}{}{}", read("out"), read("stderr"), read("err"))
    }
}
