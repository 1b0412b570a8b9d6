//! `maitred top`: live rates, sessions, latency and health of a running maitred, and draining and killing from the
//! keyboard. `model` has what is shown (pure), `view` how, `keys` what a key does; this file has the terminal and
//! threads.

mod act;
mod columns;
mod model;
mod keys;
mod view;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde_json::Value;

use super::ask::{Unanswered, Where, percent};
use act::Act;
use keys::Step;
use model::{Model, Sample};

/// Watch backends live: rates, sessions, latency, health; drain and kill from the keyboard
#[derive(Args, Debug)]
pub struct Top {
    /// How often to refresh
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    #[command(flatten)]
    at: Where,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time =
        crate::border::quantities::time(text).map_err(|_| "write a duration like 1s or 500ms")?;
    if time < Duration::from_millis(100) {
        Err("100ms is the shortest".to_owned())
    } else {
        Ok(time)
    }
}

/// How long a key may wait to be handled; also how often new samples are shown.
const TURN: Duration = Duration::from_millis(50);

/// A message of the thread that asks.
enum News {
    Sample(Box<Sample>),
    /// Why there is no sample.
    Lost(String),
    /// The outcome of an action.
    Done(String),
}

impl Top {
    pub fn run(&self) -> ExitCode {
        if !io::stdout().is_terminal() {
            eprintln!(
                "error[E0132]: `top` needs a terminal; `maitred show pools` prints the same once"
            );
            return ExitCode::from(2);
        }
        // Before the screen is taken: an error about the address must be readable.
        if let Err(error) = self.at.json("GET", "/api/v1/info", None) {
            return error.report();
        }
        let (acts, wanted) = sync_channel(1);
        let (teller, news) = sync_channel(4);
        let (at, interval) = (self.at.clone(), self.interval);
        // Ends when its receiver is gone; never joined, because it may wait for an answer.
        let asker = std::thread::Builder::new().name("ask".into());
        if let Err(error) = asker.spawn(move || look(&at, interval, &wanted, &teller)) {
            eprintln!("error[E0132]: no thread to send requests with: {error}");
            return ExitCode::FAILURE;
        }
        let mut terminal = match ratatui::try_init() {
            Ok(terminal) => terminal,
            Err(error) => {
                eprintln!("error[E0132]: the terminal cannot be used: {error}");
                return ExitCode::FAILURE;
            }
        };
        let outcome = show(&mut terminal, &news, &acts);
        ratatui::restore();
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error[E0132]: the terminal failed: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Until the operator quits.
fn show(
    terminal: &mut DefaultTerminal,
    news: &Receiver<News>,
    acts: &SyncSender<Act>,
) -> io::Result<()> {
    let mut model = Model::default();
    loop {
        loop {
            match news.try_recv() {
                Ok(News::Sample(sample)) => model.take(*sample),
                Ok(News::Lost(why)) => model.lost = Some(why),
                Ok(News::Done(what)) => model.said = what,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
        }
        terminal.draw(|frame| view::draw(frame, &mut model))?;
        if !event::poll(TURN)? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match model.press(key) {
            Step::Stay => {}
            Step::Quit => return Ok(()),
            Step::Act(act) => {
                if acts.try_send(act).is_err() {
                    model.said = "the last change is still under way".to_owned();
                }
            }
        }
    }
}

/// Takes a sample at each interval, and does the actions of keys in between.
fn look(at: &Where, interval: Duration, wanted: &Receiver<Act>, teller: &SyncSender<News>) {
    loop {
        let news = match sample(at) {
            Ok(sample) => News::Sample(Box::new(sample)),
            Err(error) => News::Lost(error.to_string()),
        };
        if teller.send(news).is_err() {
            return;
        }
        match wanted.recv_timeout(interval) {
            Ok(act) => {
                let done = perform(at, &act).unwrap_or_else(|error| error.to_string());
                if teller.send(News::Done(done)).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn sample(at: &Where) -> Result<Sample, Unanswered> {
    let get = |what: &str| at.json("GET", &format!("/api/v1/{what}"), None);
    Ok(Sample {
        info: get("info")?,
        pools: get("pools")?,
        listeners: get("listeners")?,
        events: get("events")?,
        at: Instant::now(),
    })
}

fn perform(at: &Where, act: &Act) -> Result<String, Unanswered> {
    match act {
        Act::Set { pool, backend, state } => {
            let change = serde_json::json!({ "state": state });
            let now = at.set(pool, backend, &change)?;
            let warning = now["warning"].as_str().map(|it| format!("; {it}")).unwrap_or_default();
            Ok(format!("{pool}/{backend} is {}{warning}", now["state"].as_str().unwrap_or("?")))
        }
        Act::Kill { pool, backend } => {
            let path =
                format!("/api/v1/sessions?pool={}&backend={}", percent(pool), percent(backend));
            let answer: Value = at.json("DELETE", &path, None)?;
            Ok(format!("{} sessions of {pool}/{backend} killed", answer["killed"]))
        }
    }
}
