//! Who serves within a pool: what `single`, `flap` and `failback` need besides themselves.

use crate::config::decode::{Given, Placed};
use crate::config::fault::{Code, Faults};
use crate::config::keys::{Failback, Pool, Probe, Single};

/// The pool's health is checked already.
pub fn check(given: &Given<Pool>, pool: &Pool, faults: &mut Faults) {
    let is_probed = pool.health.probe != Probe::None;
    if let Some(Placed { value, span }) = given.single.given()
        && *value != Single::None
    {
        if !is_probed {
            let message = "`single` needs a probe: without one every backend is up, and none is the one that serves";
            let hint = "write a `health.probe` that only the right backend passes";
            faults.error(Code::MissingKey, *span, message, hint);
        } else if pool.health.probe == Probe::Tcp {
            let message = "with `probe: tcp` every backend that accepts connections is right";
            let hint = "write a `health.probe` that only the right backend passes, as of its role; else with two that are \
                        up none may serve";
            faults.warning(Code::WithoutEffect, *span, message, hint);
        }
    }
    if let Some(flap) = given.flap.on()
        && !is_probed
    {
        let message = "`flap` matters only with a probe: without one no backend goes down";
        let hint = "write a `health.probe`, or leave the key out";
        faults.warning(Code::WithoutEffect, flap.span, message, hint);
    }
    let lowest = pool.backends.first().map(|backend| backend.tier);
    let is_one_tier = pool.backends.iter().all(|backend| Some(backend.tier) == lowest);
    if let Some(failback) = given.failback.given()
        && !matches!(failback.value, Given::<Failback>::Immediate)
        && pool.discovery.is_none()
        && is_one_tier
    {
        let message = "`failback` matters only with several tiers, and this pool has one";
        let hint = "give the stand-ins a `tier`, as in `{address: \"10.0.0.12:5432\", tier: 1}`, or leave the key out";
        faults.warning(Code::WithoutEffect, failback.span, message, hint);
    }
}
