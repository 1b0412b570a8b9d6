//! `process.max_sessions`: at it, accepting pauses until a session ends. Exact over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

pub struct Gate {
    open: AtomicU64,
    limit: AtomicU64,
    /// Acceptors wait here; woken one by one as places come free.
    freed: Notify,
}

/// One place; given back on drop.
pub struct GatePermit(Option<Arc<Gate>>);

impl Gate {
    pub fn new(limit: u64) -> Arc<Gate> {
        Arc::new(Gate {
            open: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
            freed: Notify::new(),
        })
    }

    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// A lower limit ends no session; it only prevents new ones.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::SeqCst);
        self.freed.notify_waiters();
    }

    pub fn try_enter(self: &Arc<Self>) -> Option<GatePermit> {
        let limit = self.limit.load(Ordering::Relaxed);
        self.open
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, |open| {
                (open < limit).then_some(open + 1)
            })
            .ok()
            .map(|_| GatePermit(Some(Arc::clone(self))))
    }

    /// Waits for a place. A waiter registers before it checks again, so that no wake-up is lost in between.
    pub async fn enter(self: &Arc<Self>) -> GatePermit {
        loop {
            if let Some(permit) = self.try_enter() {
                return permit;
            }
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(permit) = self.try_enter() {
                return permit;
            }
            freed.await;
            if let Some(permit) = self.try_enter() {
                // Places given back since then, below the limit, woke no waiter: pass it on.
                if self.open() < self.limit() {
                    self.freed.notify_one();
                }
                return permit;
            }
        }
    }
}

impl GatePermit {
    /// The caller must call `Gate::leave` later to give the place back.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Gate {
    /// Gives back a place whose permit was kept.
    pub fn leave(&self) {
        let before = self.open.fetch_sub(1, Ordering::SeqCst);
        // Waiters exist only at the limit. A waiter that was woken and finds the place taken by a faster one waits
        // again, and is woken when that one ends.
        if before >= self.limit.load(Ordering::SeqCst) {
            self.freed.notify_one();
        }
    }
}

impl Drop for GatePermit {
    fn drop(&mut self) {
        if let Some(gate) = &self.0 {
            gate.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn at_the_limit_the_next_waits_for_an_end() {
        let gate = Gate::new(1);
        let first = gate.enter().await;
        assert!(gate.try_enter().is_none());
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move { gate.enter().await }
        });
        tokio::task::yield_now().await;
        drop(first);
        drop(waiting.await.unwrap());
        assert_eq!(gate.open(), 0);
    }

    #[tokio::test]
    async fn a_burst_of_ends_wakes_as_many_as_it_has_places_for() {
        let gate = Gate::new(2);
        let held = [gate.enter().await, gate.enter().await];
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move { gate.enter().await })
            })
            .collect();
        tokio::task::yield_now().await;
        // Both end before either waiter gets its turn.
        drop(held);
        let mut entered = Vec::new();
        for waiter in waiting {
            let limit = std::time::Duration::from_secs(5);
            entered.push(tokio::time::timeout(limit, waiter).await.unwrap().unwrap());
        }
        assert_eq!(gate.open(), 2);
    }

    #[test]
    fn never_more_than_the_limit_over_threads() {
        let gate = Gate::new(7);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let permit = gate.try_enter();
                        assert!(gate.open() <= 7);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(gate.open(), 0);
    }
}
