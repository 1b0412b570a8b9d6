//! Probes that log in: one password, and a question for every expectation.

use std::path::PathBuf;

use crate::config::decode::{Field, Given};
use crate::config::fault::{Code, Fault, Faults};
use crate::config::files::NetFiles;
use crate::config::keys::{Health, Pool, Probe, ProbeConnection, Redis, Role};
use crate::config::payload::Expect;
use crate::config::question::Secret;

pub fn check(pool: &Given<Pool>, health: &mut Health, files: &mut NetFiles, faults: &mut Faults) {
    type Kind = Given<Probe>;
    let own = pool.health.value().and_then(|own| own.probe.value());
    match (own, &mut health.probe) {
        (Some(Kind::Postgres(own)), Probe::Postgres(probe)) => {
            expectation(&own.query, &own.expect, faults);
            lag(probe.role, &own.max_lag, faults);
            probe.password_file = password(&own.password, &own.password_file, files, faults);
        }
        (Some(Kind::Mysql(own)), Probe::Mysql(probe)) => {
            expectation(&own.query, &own.expect, faults);
            lag(probe.role, &own.max_lag, faults);
            probe.password_file = password(&own.password, &own.password_file, files, faults);
        }
        (Some(Kind::Redis(own)), Probe::Redis(probe)) => {
            lag(probe.role, &own.max_lag, faults);
            user(own, faults);
            probe.password_file = password(&own.password, &own.password_file, files, faults);
        }
        _ => kept(pool, health, faults),
    }
    unencrypted(pool, health, faults);
}

/// Where the password is, if a file has it. The file is read now for the sake of faults; the probes read it again.
fn password(
    given: &Field<Option<Secret>>,
    file: &Field<Option<PathBuf>>,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Option<PathBuf> {
    let file = file.on()?;
    if let Some(given) = given.on() {
        let message = "`password` and `password_file` are both given";
        let hint = "leave one of them out";
        let fault = Fault::error(Code::GivenTwice, file.span, message, hint);
        return faults.refuse(fault.also(given.span, "the other one"));
    }
    let text = files.password(file.value, file.span, faults)?;
    if let Err(message) = Secret::read(&text) {
        let hint = "write the password alone into that file";
        return faults.refuse(Fault::error(
            Code::Malformed,
            file.span,
            format!("{message} in this file"),
            hint,
        ));
    }
    Some(files.resolve(file.value, file.span))
}

/// What is expected of no question would never be looked at.
fn expectation(query: &Field<Option<String>>, expect: &Field<Option<Expect>>, faults: &mut Faults) {
    if let Some(expect) = expect.on()
        && query.value().is_none_or(Option::is_none)
        && !matches!(query, Field::Faulty)
    {
        let message =
            "`expect` matters only with `query`: without it there is no answer to look at";
        let hint = "write the question, as in `query: \"select 1\"`, or leave `expect` out";
        faults.warning(Code::WithoutEffect, expect.span, message, hint);
    }
}

fn lag<T>(role: Role, max_lag: &Field<Option<T>>, faults: &mut Faults) {
    if let Some(lag) = max_lag.on().filter(|_| role == Role::Primary) {
        let message = "`max_lag` is about replicas, and `role: primary` lets none serve";
        faults.warning(Code::WithoutEffect, lag.span, message, "leave it out");
    }
}

/// Redis has no login without a password.
fn user(own: &Given<Redis>, faults: &mut Faults) {
    let is_given = own.password.on().is_some() || own.password_file.on().is_some();
    let is_faulty = matches!(own.password, Field::Faulty);
    if let Some(user) = own.user.on().filter(|_| !is_given && !is_faulty) {
        let message = "a user of Redis logs in with a password, and there is none";
        let hint = "write `password_file: FILE` too, or leave `user` out";
        faults.error(Code::MissingKey, user.span, message, hint);
    }
}

/// Datagrams of probes are never encrypted, and what is not probed is neither.
fn unencrypted(pool: &Given<Pool>, health: &Health, faults: &mut Faults) {
    let given = pool.health.value().and_then(|own| own.tls.given());
    if let Some(given) = given.filter(|it| it.value.as_ref().is_some_and(Option::is_some))
        && matches!(health.probe, Probe::Dns(_) | Probe::None | Probe::Udp(_))
    {
        let message = "`health.tls` matters only to probes by TCP";
        faults.warning(Code::WithoutEffect, given.span, message, "leave it out");
    }
}

/// Only a login is worth keeping.
fn kept(pool: &Given<Pool>, health: &Health, faults: &mut Faults) {
    let given = pool.health.value().and_then(|own| own.connection.given());
    if let Some(given) = given.filter(|_| health.connection == ProbeConnection::Kept) {
        let message = "`connection: kept` matters only to probes that log in";
        let hint = "leave it out, or probe by `postgres`, `mysql` or `redis`";
        faults.warning(Code::WithoutEffect, given.span, message, hint);
    }
}
