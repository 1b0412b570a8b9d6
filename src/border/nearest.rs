//! "Did you mean …?": the known word nearest to a mistyped one.

/// `None` when nothing is near enough to be meant. Case does not count, `-` and `_` are the same.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A name this long is not a slip of the finger, and the distance below is quadratic.
    const MAX_LENGTH: usize = 64;
    let word = fold(word);
    if word.is_empty() || word.len() > MAX_LENGTH {
        return None;
    }
    let allowed = (word.len() / 3).clamp(1, 4);
    known
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_LENGTH)
        .map(|candidate| (distance(&word, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn fold(word: &str) -> Vec<char> {
    word.chars().flat_map(char::to_lowercase).map(|c| if c == '-' { '_' } else { c }).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_a_stranger_finds_none() {
        let known = ["protocol", "pool", "backlog", "on_refuse"];
        assert_eq!(nearest("protcol", known), Some("protocol"));
        assert_eq!(nearest("on-refuse", known), Some("on_refuse"));
        assert_eq!(nearest("Pool", known), Some("pool"));
        assert_eq!(nearest("opol", known), Some("pool"));
        assert_eq!(nearest("certificate", known), None);
        assert_eq!(nearest("", known), None);
    }
}
