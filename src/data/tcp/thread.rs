//! The thread of a worker, with a runtime of its own: accepts sessions and follows the supervisor's commands until it
//! is told to stop.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::LocalRuntime;

use super::closing;
use super::life;
use super::listener::{self, Acceptor};
use super::mailbox::{Command, Mail, Mailbox};
use super::resources::{Resources, Share};
use super::spin;
use super::worker::Worker;
use crate::border::addr::ListenAddr;
use crate::border::plane::{Plane, SEATS};
use crate::border::snapshot::Listener;

/// Runs worker `id` on this thread until it is told to stop.
pub fn run(
    runtime: &LocalRuntime,
    id: usize,
    plane: Arc<Plane>,
    all: Box<[Mailbox]>,
    mut mail: Mail,
    share: Share,
) {
    plane.workers[id].set_metrics(runtime.metrics());
    let worker = Worker::new(Resources::new(id, plane, share), all);
    runtime.block_on(async {
        let mut acceptors: HashMap<ListenAddr, Acceptor> = HashMap::new();
        let spinning = Rc::clone(&worker);
        tokio::task::spawn_local(async move { spin::run(&spinning.spin, &spinning.plane).await });
        loop {
            tokio::select! {
                Some(arrival) = mail.arrivals.recv() => life::start(&worker, arrival),
                command = mail.commands.recv() => match command {
                    Some(Command::Stop) | None => break,
                    Some(command) => obey(&worker, command, &mut acceptors),
                },
            }
        }
    });
}

fn obey(worker: &Rc<Worker>, command: Command, acceptors: &mut HashMap<ListenAddr, Acceptor>) {
    match command {
        Command::Cut(cut) => match cut.closing.clone() {
            None => worker.cut(&cut),
            Some(pace) => {
                let worker = Rc::clone(worker);
                tokio::task::spawn_local(async move { closing::close(worker, cut, &pace).await });
            }
        },
        Command::CutQuiet(cut) => {
            if let Some(pace) = cut.closing.clone() {
                let worker = Rc::clone(worker);
                tokio::task::spawn_local(async move {
                    closing::close_quiet(worker, cut, &pace).await;
                });
            }
        }
        Command::GiveWay(addresses, done) => {
            let gone = addresses.iter().filter_map(|address| acceptors.remove(address));
            gone.for_each(|acceptor| acceptor.give_way(done.clone()));
        }
        Command::List(filter, from, answer) => {
            // A reader that has left needs no answer.
            let _ = answer.send(worker.list(&filter, from));
        }
        Command::Listen(sockets) => {
            for (address, config, socket) in sockets {
                match listener::start(worker, config, socket) {
                    Ok(acceptor) => drop(acceptors.insert(address, acceptor)),
                    Err(error) => tracing::error!(%address, %error, "cannot watch a socket"),
                }
            }
        }
        Command::LookAgain(listeners) => {
            tokio::task::spawn_local(look_again(Rc::clone(worker), listeners));
        }
        Command::Retarget(addresses) => {
            for (address, config) in addresses {
                if let Some(acceptor) = acceptors.get(&address) {
                    acceptor.retarget(config);
                }
            }
        }
        Command::Stop => {}
        Command::Unlisten(addresses, done) => {
            let gone = addresses.iter().filter_map(|address| acceptors.remove(address));
            gone.for_each(|acceptor| acceptor.close(done.clone()));
        }
    }
}

/// Some seats at a time, so that other work does not wait. A session that starts meanwhile is checked when it starts.
async fn look_again(worker: Rc<Worker>, listeners: Vec<Arc<Listener>>) {
    let mut from = 0;
    while worker.look_again(&listeners, from) {
        from += SEATS;
        tokio::task::yield_now().await;
    }
}
