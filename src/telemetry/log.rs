//! The program's own log, on standard output: text on a terminal, JSON elsewhere. Neither plane ever waits for its
//! reader: lines go through a bounded queue to one writing thread; lines that do not fit, or cannot be written, are
//! dropped and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use super::sink::Sink;
use crate::border::counters::SharedCounter;
use crate::config::{LogFormat, LogLevel};

/// Lines that wait for a slow reader of our output.
const QUEUE: usize = 4096;

/// The queue to the writing thread; one for the process.
#[derive(Clone)]
pub struct Output {
    queue: SyncSender<Message>,
    /// `log_dropped_total`, session lines included.
    pub dropped: Arc<SharedCounter>,
}

enum Message {
    Flush(SyncSender<()>),
    Line(Vec<u8>),
}

/// The level can change at a reload; the format cannot.
pub struct Log {
    pub output: Output,
    pub is_json: bool,
    level: reload::Handle<LevelFilter, Registry>,
}

impl Output {
    pub fn start() -> io::Result<Output> {
        let (queue, messages) = sync_channel(QUEUE);
        let dropped: Arc<SharedCounter> = Arc::default();
        let refused = Arc::clone(&dropped);
        std::thread::Builder::new().name("log".into()).spawn(move || {
            let mut out = Sink::new(io::stdout());
            for message in messages {
                match message {
                    Message::Line(line) if out.line(&line) => {}
                    Message::Line(_) => refused.add(1),
                    Message::Flush(done) => drop(done.send(())),
                }
            }
        })?;
        Ok(Output { queue, dropped })
    }

    pub fn line(&self, line: Vec<u8>) {
        if self.queue.try_send(Message::Line(line)).is_err() {
            self.dropped.add(1);
        }
    }

    /// Waits until everything that was logged is written, at most a second: at the end of the process.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.try_send(Message::Flush(done)).is_ok() {
            // If the reader is too slow, the rest is lost.
            let _ = written.recv_timeout(std::time::Duration::from_secs(1));
        }
    }
}

/// Starts logging, once for the process.
pub fn start(format: LogFormat, level: LogLevel) -> io::Result<&'static Log> {
    static LOG: OnceLock<Log> = OnceLock::new();
    if let Some(log) = LOG.get() {
        return Ok(log);
    }
    let output = Output::start()?;
    let is_terminal = io::stdout().is_terminal();
    let is_json = match format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Json => true,
        LogFormat::Text => false,
    };
    let (filter, level) = reload::Layer::new(filter(level));
    let layer = tracing_subscriber::fmt::layer().with_writer(output.clone()).with_target(false);
    let layer = if is_json {
        layer.json().flatten_event(true).with_filter(filter).boxed()
    } else {
        let color = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        layer.with_ansi(color).with_filter(filter).boxed()
    };
    // Only a test could have set one before.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    Ok(LOG.get_or_init(|| Log { output, is_json, level }))
}

impl Log {
    pub fn set_level(&self, level: LogLevel) {
        // Fails only without a subscriber, and then there is no level.
        let _ = self.level.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// One line being formatted; sent whole when done.
pub struct Line<'a> {
    output: &'a Output,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.output.line(std::mem::take(&mut self.bytes));
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { output: self, bytes: Vec::new() }
    }
}
