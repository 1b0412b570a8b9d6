//! What the routes share: the state, and the places for what takes long to make.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::guard::Door;
use super::visitor;
use super::{Lister, State};
use crate::border::plane::{SessionFilter, SessionRow};
use crate::sys::blocking;

/// Scrapes and pages that are made at once, each on a thread of its own.
const PAGES: usize = 4;

/// Lists of sessions that are made at once: they take time of the workers.
const LISTS: usize = 1;

/// What the routes share.
#[derive(Clone)]
pub(super) struct Shared {
    pub state: Arc<State>,
    pages: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    pub door: Door,
    pub stall: Duration,
}

pub(super) struct Listed {
    pub rows: Vec<SessionRow>,
    _place: Option<OwnedSemaphorePermit>,
}

const GONE: &str = "the client has left\n";

pub(super) fn busy(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::CONNECTION, "close")], why).into_response()
}

impl Shared {
    pub fn new(state: Arc<State>, door: Door, stall: Duration) -> Shared {
        let [pages, lists] = [PAGES, LISTS].map(|places| Arc::new(Semaphore::new(places)));
        Shared { state, pages, lists, door, stall }
    }

    /// Makes a page on another thread, so that neither probes nor other answers wait for a large one; then the
    /// answer.
    pub async fn aside<T: Send + 'static>(
        &self,
        make: impl FnOnce(&State) -> T + Send + 'static,
        answer: impl FnOnce(T) -> Response,
    ) -> Response {
        let place = Arc::clone(&self.pages).acquire_owned().await;
        if visitor::is_gone() {
            return busy(GONE);
        }
        let state = Arc::clone(&self.state);
        let made = blocking::run("page", move || {
            // Given back when the page is made, also if no client waits for it any more.
            let _place = place;
            make(&state)
        });
        match made {
            Ok(made) => match made.await {
                Ok(made) => answer(made),
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            },
            Err(error) => {
                tracing::debug!(%error, "no thread to make a page with");
                busy("there is no thread to make this answer with\n")
            }
        }
    }

    /// A list of sessions or flows. The workers make it, a part at a time, and stop once the client has left. No
    /// other list is made until this one is dropped.
    pub async fn listed(&self, list: &Lister, filter: SessionFilter) -> Listed {
        let place = Arc::clone(&self.lists).acquire_owned().await;
        let rows = if visitor::is_gone() { Vec::new() } else { list(filter).await };
        Listed { rows, _place: place.ok() }
    }
}
