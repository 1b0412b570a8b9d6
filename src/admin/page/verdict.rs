//! Whether all is well, in words: the first line of the page and its title. Pure: from findings to sentences.

use super::figures::several;
use crate::data::pool::backend::BackendState;

/// The findings.
#[derive(Default)]
pub struct Found {
    pub draining: bool,
    /// Servers, by the worst state in any pool, in the order of `BackendState::ALL`: a server that is a standby in
    /// one and serves in another is up.
    pub states: [usize; BackendState::ALL.len()],
    /// Pools of which no backend takes sessions.
    pub deserted: Vec<String>,
    /// Pools with `single` in which several backends say that they are the one that serves.
    pub conflicts: Vec<String>,
    /// Pools whose probes can log in nowhere.
    pub blind: Vec<String>,
    /// Servers that are a standby in each of several pools: they serve none of them.
    pub unused: Vec<String>,
    /// Listeners at their limit.
    pub full: Vec<String>,
    pub reload_refused: Option<String>,
    /// Files that changed and could not be read, and why.
    pub stale: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Good,
    Odd,
    Bad,
}

pub struct Verdict {
    pub level: Level,
    /// The title of the browser's tab.
    pub title: String,
    pub sentence: String,
    /// Further notes, each a sentence.
    pub notes: Vec<String>,
}

/// Names in one sentence; the others are counted.
const NAMED: usize = 5;

impl Level {
    pub fn class(self) -> &'static str {
        match self {
            Level::Good => "good",
            Level::Odd => "odd",
            Level::Bad => "bad",
        }
    }

    /// In addition to the colour, for people who do not see it.
    pub fn symbol(self) -> &'static str {
        match self {
            Level::Good => "●",
            Level::Odd => "▲",
            Level::Bad => "✕",
        }
    }
}

pub fn judge(found: &Found) -> Verdict {
    let [starting, up, standby, down, ejected, drained, maintenance] = found.states;
    let all: usize = found.states.iter().sum();
    let backends = if all == 1 { "backend" } else { "backends" };
    // The count of all is with the first.
    let mut counts: Vec<String> = Vec::new();
    for (count, word) in [
        (down, "down"),
        (ejected, "ejected"),
        (drained, "drained by hand"),
        (maintenance, "in maintenance by hand"),
        (starting, "starting"),
    ] {
        if count > 0 {
            let of_all = format!("{count} of {all} {backends} {word}");
            let is_first = counts.is_empty();
            counts.push(if is_first { of_all } else { format!("{count} {word}") });
        }
    }
    let counts = counts.join(", ");
    // Not a failure, and so not among the counts.
    let spare = if standby > 0 { format!(", {standby} standby") } else { String::new() };
    let deserted = (!found.deserted.is_empty()).then(|| {
        format!("no backend up in {} {}", plural(&found.deserted, "pool"), named(&found.deserted))
    });
    let conflict = (!found.conflicts.is_empty()).then(|| {
        let pools = plural(&found.conflicts, "pool");
        format!("several backends of {pools} {} say they are right", named(&found.conflicts))
    });
    let blind = (!found.blind.is_empty()).then(|| {
        let pools = plural(&found.blind, "pool");
        format!("the probes of {pools} {} cannot log in", named(&found.blind))
    });
    let is_odd = found.reload_refused.is_some()
        || !found.stale.is_empty()
        || !found.full.is_empty()
        || !found.unused.is_empty()
        || found.draining
        || !counts.is_empty()
        || all == 0;
    let level = match () {
        () if deserted.is_some() || conflict.is_some() || blind.is_some() => Level::Bad,
        () if down + ejected > 0 => Level::Bad,
        () if is_odd => Level::Odd,
        () => Level::Good,
    };
    let drain = found.draining.then(|| "draining: no new sessions".to_owned());
    let parts: Vec<String> =
        [drain, deserted, conflict, blind, Some(counts).filter(|it| !it.is_empty())]
            .into_iter()
            .flatten()
            .collect();
    let sentence = match () {
        () if !parts.is_empty() => capital(&parts.join("; ")),
        () if all == 0 => "No backends are configured".to_owned(),
        () if is_odd => format!("{up} of {all} {backends} up{spare}, but see below"),
        () => format!("All is well: {up} of {all} {backends} up{spare}"),
    };
    Verdict { level, title: title(found), sentence, notes: notes(found) }
}

fn title(found: &Found) -> String {
    let [starting, up, standby, down, ejected, drained, maintenance] = found.states;
    let word = match () {
        () if found.draining => "draining".to_owned(),
        () if !found.deserted.is_empty() => format!("no backend up in {}", named(&found.deserted)),
        () if !found.conflicts.is_empty() => format!("conflict in {}", named(&found.conflicts)),
        () if !found.blind.is_empty() => format!("probes of {} blind", named(&found.blind)),
        () if down > 0 => format!("{down} down"),
        () if ejected > 0 => format!("{ejected} ejected"),
        () if found.reload_refused.is_some() => "reload refused".to_owned(),
        () if !found.stale.is_empty() => "file not read".to_owned(),
        () if !found.full.is_empty() => "listener full".to_owned(),
        () if !found.unused.is_empty() => format!("{} standby in every pool", found.unused.len()),
        () if drained > 0 => format!("{drained} drained"),
        () if maintenance > 0 => format!("{maintenance} in maintenance"),
        () if up + standby + starting == 0 => "no backends".to_owned(),
        () if starting > 0 => format!("{starting} starting"),
        () => "all well".to_owned(),
    };
    format!("maitred: {word}")
}

fn notes(found: &Found) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(why) = &found.reload_refused {
        notes.push(format!(
            "The last reload was refused; the previous configuration stays in force: {why}"
        ));
    }
    if !found.unused.is_empty() {
        notes.push(format!(
            "Standby in every pool, so it serves none: {}. Is the server behind it running?",
            named(&found.unused)
        ));
    }
    if !found.full.is_empty() {
        let listeners = plural(&found.full, "listener");
        notes.push(format!("At its limit: {listeners} {}", named(&found.full)));
    }
    for (path, why) in found.stale.iter().take(NAMED) {
        notes.push(format!(
            "{path} changed and could not be read; its last good content stays in force: {why}"
        ));
    }
    if found.stale.len() > NAMED {
        notes.push(format!(
            "The same for {}",
            several(found.stale.len() - NAMED, "more file", "more files")
        ));
    }
    notes
}

fn plural(names: &[String], one: &str) -> String {
    if names.len() == 1 { one.to_owned() } else { format!("{one}s") }
}

fn named(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(found: &Found) -> (Level, String, String) {
        let verdict = judge(found);
        (verdict.level, verdict.title, verdict.sentence)
    }

    #[test]
    fn the_first_line_says_what_is_wrong_the_worst_first() {
        let mut found = Found { states: [0, 5, 0, 0, 0, 0, 0], ..Found::default() };
        let well = "All is well: 5 of 5 backends up";
        assert_eq!(judged(&found), (Level::Good, "maitred: all well".into(), well.into()));
        found.reload_refused = Some("error[E0010]: unknown key".into());
        let sentence = "5 of 5 backends up, but see below";
        assert_eq!(judged(&found), (Level::Odd, "maitred: reload refused".into(), sentence.into()));
        assert!(judge(&found).notes[0].ends_with("error[E0010]: unknown key"));
        found.states = [0, 2, 0, 2, 0, 1, 0];
        let sentence = "2 of 5 backends down, 1 drained by hand";
        assert_eq!(judged(&found), (Level::Bad, "maitred: 2 down".into(), sentence.into()));
        found.deserted = vec!["db".into()];
        let sentence = "No backend up in pool db; 2 of 5 backends down, 1 drained by hand";
        assert_eq!(
            judged(&found),
            (Level::Bad, "maitred: no backend up in db".into(), sentence.into())
        );
        found.draining = true;
        assert!(judge(&found).sentence.starts_with("Draining: no new sessions; no backend up"));
        assert_eq!(judge(&found).title, "maitred: draining");
    }

    #[test]
    fn a_standby_in_every_pool_is_odd() {
        let mut found = Found { states: [0, 2, 1, 0, 0, 0, 0], ..Found::default() };
        found.unused = vec!["10.0.0.3:5432".into()];
        let (level, title, sentence) = judged(&found);
        assert_eq!((level, &*title), (Level::Odd, "maitred: 1 standby in every pool"));
        assert_eq!(sentence, "2 of 3 backends up, 1 standby, but see below");
        assert!(judge(&found).notes[0].contains("it serves none: 10.0.0.3:5432."));
    }

    #[test]
    fn two_that_say_they_are_right_are_a_failure() {
        let blind =
            Found { states: [0, 1, 1, 0, 0, 0, 0], blind: vec!["db".into()], ..Found::default() };
        let sentence = "The probes of pool db cannot log in";
        assert_eq!(
            judged(&blind),
            (Level::Bad, "maitred: probes of db blind".into(), sentence.into())
        );
        let conflicts = vec!["db".into()];
        let found = Found { states: [0, 1, 1, 0, 0, 0, 0], conflicts, ..Found::default() };
        let sentence = "Several backends of pool db say they are right";
        assert_eq!(judged(&found), (Level::Bad, "maitred: conflict in db".into(), sentence.into()));
    }

    #[test]
    fn a_standby_is_no_failure() {
        let found = Found { states: [0, 2, 1, 0, 0, 0, 0], ..Found::default() };
        let well = "All is well: 2 of 3 backends up, 1 standby";
        assert_eq!(judged(&found), (Level::Good, "maitred: all well".into(), well.into()));
        let found = Found { states: [0, 0, 2, 0, 0, 0, 0], deserted: vec!["db".into()], ..found };
        assert_eq!(judged(&found).0, Level::Bad, "but somebody has to serve");
    }

    #[test]
    fn what_a_hand_did_is_odd_and_nothing_at_all_is_said() {
        let found = Found { states: [0, 0, 0, 0, 0, 0, 1], ..Found::default() };
        let sentence = "1 of 1 backend in maintenance by hand";
        assert_eq!(
            judged(&found),
            (Level::Odd, "maitred: 1 in maintenance".into(), sentence.into())
        );
        let (level, title, sentence) = judged(&Found::default());
        assert_eq!((level, &*title), (Level::Odd, "maitred: no backends"));
        assert_eq!(sentence, "No backends are configured");
    }

    #[test]
    fn sentences_are_bounded() {
        let names: Vec<String> = (0..1000).map(|number| format!("pool-{number}")).collect();
        let stale = names.iter().map(|name| (name.clone(), "gone".to_owned())).collect();
        let found = Found { full: names.clone(), deserted: names, stale, ..Found::default() };
        let verdict = judge(&found);
        assert_eq!(
            verdict.sentence,
            "No backend up in pools pool-0, pool-1, pool-2, pool-3, pool-4 and 995 more"
        );
        assert_eq!(verdict.notes.len(), 2 + NAMED);
        assert!(verdict.notes.iter().all(|note| note.len() < 200));
    }
}
