//! The products: none at all, nginx's stream module, maitred. How each is configured, started, and ended.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::place::Place;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Product {
    Direct,
    Maitred,
    Nginx,
}

/// Started, and ended when dropped.
pub struct Running {
    child: Child,
}

impl Product {
    pub fn named(name: &str) -> Result<Product, String> {
        match name {
            "direct" => Ok(Product::Direct),
            "maitred" => Ok(Product::Maitred),
            "nginx" => Ok(Product::Nginx),
            _ => Err(format!("`{name}` is none of direct, maitred, nginx")),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Product::Direct => "direct",
            Product::Maitred => "maitred",
            Product::Nginx => "nginx",
        }
    }

    /// As the product says it.
    pub fn version(self, maitred: &Path) -> Result<String, String> {
        let mut command = match self {
            Product::Direct => return Ok("no balancer".to_owned()),
            Product::Maitred => Command::new(maitred),
            Product::Nginx => Command::new(nginx()),
        };
        command.arg(if self == Product::Nginx { "-v" } else { "version" });
        let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().next().unwrap_or_default();
        Ok(line.trim_start_matches("nginx version: ").trim().to_owned())
    }

    /// Between this address and that one. Nothing to start if there is no product.
    pub fn start(
        self,
        place: &Place,
        listen: SocketAddr,
        backend: SocketAddr,
        tools: &Tools,
    ) -> Result<Option<Running>, String> {
        let dir = tools.dir.as_path();
        let mut command = match self {
            Product::Direct => return Ok(None),
            Product::Nginx => {
                write(&dir.join("nginx.conf"), &nginx_config(listen, backend, dir))?;
                let mut command = place.product_command(nginx());
                command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
                command.arg("-e").arg(dir.join("nginx.err"));
                command
            }
            Product::Maitred => {
                // TCP and UDP ports are apart: the admin address can have the same number.
                let text = maitred_config(listen, backend, listen);
                write(&dir.join("maitred.yaml"), &text)?;
                let mut command = place.product_command(&tools.maitred.display().to_string());
                command.args(["run", "--config"]).arg(dir.join("maitred.yaml"));
                command
            }
        };
        let log = |end| File::create(dir.join(format!("{}.{end}", self.name())));
        let (out, err) = (log("out").map_err(text)?, log("stderr").map_err(text)?);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
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

/// What products need besides addresses.
pub struct Tools {
    pub maitred: PathBuf,
    /// Configurations and logs of this comparison.
    pub dir: PathBuf,
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

fn nginx() -> &'static str {
    if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" }
}

fn write(path: &Path, content: &str) -> Result<(), String> {
    fs::write(path, content).map_err(|error| format!("{}: {error}", path.display()))
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// One worker, no log, a queue as large as the system lets it have; the rest is its default.
fn nginx_config(listen: SocketAddr, backend: SocketAddr, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log /dev/null crit;
events {{ worker_connections 18000; }}
stream {{
    access_log off;
    server {{
        listen {listen} udp reuseport rcvbuf=8m;
        proxy_pass {backend};
        proxy_timeout 10m;
    }}
}}
"
    )
}

fn maitred_config(listen: SocketAddr, backend: SocketAddr, admin: SocketAddr) -> String {
    format!(
        "version: 1
process: {{workers: 1, shutdown: {{timeout: 100ms}}}}
admin: {{listen: \"{admin}\"}}
log: {{sessions: none}}
listeners:
  bench: {{bind: \"{listen}\", protocol: udp, pool: bench, flow: {{timeout: 10m}}}}
pools:
  bench: {{backends: [\"{backend}\"], health: {{probe: none}}}}
"
    )
}
