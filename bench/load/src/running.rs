//! Starting a product, and ending it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::place::Place;
use crate::product::Product::{self, *};
use crate::product::Tools;
use crate::setup::{self, Setup};

/// Started, and ended when dropped.
pub struct Running {
    child: Child,
}

impl Product {
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
