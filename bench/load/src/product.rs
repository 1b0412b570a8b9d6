//! The products: none at all, two minimal relays, the balancers of others, maitred. How each is started, and ended.
//! Their configurations are in `setup`.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::flags::Flags;
use crate::place::Place;
use crate::setup::{self, Setup};

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

/// Started, and ended when dropped.
pub struct Running {
    child: Child,
}

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
    fn program(self, tools: &Tools) -> Option<&Path> {
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

    /// Between this address and those. Nothing to start if there is no product.
    pub fn start(
        self,
        place: &Place,
        setup: &Setup,
        tools: &Tools,
    ) -> Result<Option<Running>, String> {
        let Setup { listen, backends, workers, .. } = setup;
        let dir = tools.dir.as_path();
        let path = dir.join(format!("{}.yaml", self.name()));
        if let Some(config) = setup::config(self, setup, tools) {
            write(&path, &config)?;
        }
        let own = || std::env::current_exe().map_err(|error| error.to_string());
        let command =
            |program: &Path| place.product_command(&program.display().to_string(), *workers);
        let mut command = match self {
            Direct => return Ok(None),
            RelayCopy | RelaySplice => {
                let mut command = command(&own()?);
                command.args(["relay", "--seconds", "600", "--listen", &listen.to_string()]);
                command.args(["--to", &backends[0].to_string()]);
                if self == RelaySplice {
                    command.arg("--splice");
                }
                command
            }
            Nginx | Nginx64K => {
                let mut command = command(&tools.nginx);
                command.arg("-p").arg(dir).arg("-c").arg(path).arg("-e").arg(dir.join("nginx.err"));
                command
            }
            HAProxy | HAProxySplice => {
                let mut command = command(&tools.haproxy);
                command.args(["-db", "-f"]).arg(path);
                command
            }
            Envoy => {
                let mut command = command(&tools.envoy);
                command.args(["--concurrency", &workers.to_string(), "-l", "error"]);
                command.args(["--disable-hot-restart", "-c"]).arg(path);
                command
            }
            _ => {
                let program = self.program(tools).ok_or("nothing to compare with")?;
                let mut command = command(program);
                command.args(["run", "--config"]).arg(path);
                command
            }
        };
        let log = |end| File::create(dir.join(format!("{}.{end}", self.name()))).map_err(text);
        command.stdin(Stdio::null()).stdout(log("out")?).stderr(log("stderr")?);
        Running::start(&mut command).map(Some)
    }

    /// What it had to say when something went wrong.
    pub fn said(self, tools: &Tools) -> String {
        let read = |end: &str| {
            fs::read_to_string(tools.dir.join(format!("{}.{end}", self.name()))).unwrap_or_default()
        };
        format!("{}{}{}", read("out"), read("stderr"), read("err"))
    }
}

impl Running {
    pub fn start(command: &mut Command) -> Result<Running, String> {
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        Ok(Running { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(id) = Pid::from_raw(self.child.id().cast_signed())
            && !self.has_ended()
        {
            // nginx takes its worker along.
            let _ = kill_process(id, Signal::TERM);
            let end = Instant::now() + Duration::from_secs(3);
            while !self.has_ended() && Instant::now() < end {
                // Between two looks.
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(path: &Path, content: &str) -> Result<(), String> {
    fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// The address that is the `number`th after this one.
pub fn address_after(first: SocketAddr, number: u16) -> SocketAddr {
    match first {
        SocketAddr::V4(it) => {
            (std::net::Ipv4Addr::from(u32::from(*it.ip()) + u32::from(number)), it.port()).into()
        }
        SocketAddr::V6(_) => first,
    }
}
