//! Setting something on a backend by hand, and lifting it: into the book, then into the backends.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::Supervisor;
use crate::control::health::transition;
use crate::data::pool::backend::Backend;
use crate::data::pool::hand::{Hand, NotSet, StateWish, Wish};

impl Supervisor {
    /// Sets or lifts something by hand: at once, and for good unless `wish` has an end. `None`: lifted from a backend
    /// that does not exist. Discovery may find it again, and then it must not have its old state.
    pub async fn set_by_hand(
        &mut self,
        pool: &str,
        backend: &str,
        wish: &Wish,
        who: &str,
    ) -> Result<Option<Arc<Backend>>, NotSet> {
        let can_be_absent = wish.only_lifts() && self.hands.of(pool, backend).is_some();
        if !can_be_absent {
            self.backend(pool, backend)?;
        }
        let before = self.hands.clone();
        if !self.hands.grant(pool, backend, wish, who, SystemTime::now()) {
            return Err(NotSet::Full);
        }
        if let Err(why) = self.show_hands(pool).await {
            self.hands = before;
            self.tell_hands(pool).await;
            return Err(why);
        }
        let what = format!("{pool}/{backend} {}", words(wish, who));
        let snapshot = self.plane.snapshot.load();
        if wish.state == Some(StateWish::Up)
            && let (Some(pool), Ok(backend)) =
                (snapshot.pools.get(pool), self.backend(pool, backend))
        {
            pool.let_serve(&backend, Instant::now(), SystemTime::now());
        }
        let takes_away = !self.hands.of(pool, backend).is_none_or(Hand::takes_sessions);
        if takes_away && snapshot.pools.get(pool).is_some_and(|pool| pool.is_deserted()) {
            let what = format!("{what}; no backend of pool {pool} takes new sessions now");
            self.events.warn_backend(pool, backend, what);
        } else {
            self.events.note_backend(pool, backend, what);
        }
        Ok(self.backend(pool, backend).ok())
    }

    fn backend(&self, pool: &str, backend: &str) -> Result<Arc<Backend>, NotSet> {
        let snapshot = self.plane.snapshot.load();
        let backends = &snapshot.pools.get(pool).ok_or(NotSet::NoPool)?.backends;
        let found = backends.iter().find(|it| *it.name == *backend);
        found.map(Arc::clone).ok_or(NotSet::NoBackend)
    }

    /// When the next entry's time is over.
    pub fn hands_until(&self) -> Option<SystemTime> {
        self.hands.until()
    }

    pub async fn expire_hands(&mut self) {
        for (pool, backends) in self.hands.expire(SystemTime::now()) {
            for backend in backends {
                let what =
                    format!("{pool}/{backend} what was set by hand is lifted: its time is over");
                self.events.note_backend(&pool, &backend, what);
            }
            if let Err(why) = self.show_hands(&pool).await {
                tracing::error!(pool, "what was set by hand could not be lifted: {why}");
            }
        }
    }

    /// Applies the book to the backends of a pool: states first, so that sessions follow them, then weights, from
    /// which tables are built.
    async fn show_hands(&mut self, pool: &str) -> Result<(), NotSet> {
        self.tell_hands(pool).await;
        let weighed = self.hands.weigh(self.base.clone());
        if weighed.pools != self.plane.snapshot.load().config.pools {
            self.reload(self.base.clone()).map_err(|error| NotSet::Refused(error.to_string()))?;
        }
        Ok(())
    }

    async fn tell_hands(&self, pool: &str) {
        let Some(pool) = self.plane.snapshot.load().pools.get(pool).map(Arc::clone) else { return };
        for backend in &pool.backends {
            if let Some(transition) = self.hands.obey(backend) {
                self.monitor.tell(Arc::clone(&pool), Arc::clone(backend), transition).await;
            }
        }
        pool.reorder(Instant::now(), SystemTime::now());
    }
}

/// What was set, for the log.
fn words(wish: &Wish, who: &str) -> String {
    let state = wish.state.map(|state| match state {
        StateWish::Set(state) => state.as_str().to_owned(),
        StateWish::Up => "up".to_owned(),
    });
    let weight = wish.weight.map(|weight| match weight {
        Some(weight) => format!("weight {weight}"),
        None => "configured weight".to_owned(),
    });
    let what: Vec<String> = state.into_iter().chain(weight).collect();
    let until =
        wish.until.map_or_else(String::new, |until| format!(" until {}", transition::time(until)));
    format!("set by hand: {}{until} ({who})", what.join(", "))
}
