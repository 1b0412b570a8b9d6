//! One DNS query, and the part of its answer that a probe needs (RFC 1035, section 4). Not a resolver: records are
//! not read.
//!
//! ```text
//!   0    2       4         6         8         10        12
//!   ┌────┬───────┬─────────┬─────────┬─────────┬─────────┬──────────────────────────┬──────┬───────┐
//!   │ id │ flags │ queries │ answers │ ...     │ ...     │ 7 example 3 com 0        │ type │ class │
//!   └────┴───────┴─────────┴─────────┴─────────┴─────────┴──────────────────────────┴──────┴───────┘
//! ```

use std::borrow::Cow;

/// What the bytes mean to the sender of the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// NOERROR or NXDOMAIN: the server works, whether the name exists or not.
    Answered,
    /// It says that it could not answer or refused to; by its name (RFC 1035, RFC 2136) or its number.
    Failed(Cow<'static, str>),
    /// Not an answer to this query: another id, another question, or not DNS at all.
    Unrelated,
}

const HEADER: usize = 12;
const RECURSION_DESIRED: u8 = 0x01;
const CLASS_INTERNET: u16 = 1;

/// A query for records of a type, by its number, of `name`, whose form the configuration has checked: labels of at
/// most 63 letters.
pub fn query(id: u16, name: &str, record_type: u16) -> Vec<u8> {
    let mut query = Vec::with_capacity(HEADER + name.len() + 6);
    query.extend(id.to_be_bytes());
    query.extend([RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(record_type.to_be_bytes());
    query.extend(CLASS_INTERNET.to_be_bytes());
    query
}

/// What `reply` says to `query`, which is one of `query`'s. Letters of the name may come back in upper or lower case.
pub fn answer(query: &[u8], reply: &[u8]) -> Answer {
    let Some((header, rest)) = reply.split_first_chunk::<HEADER>() else {
        return Answer::Unrelated;
    };
    let Some((asked, question)) = query.split_first_chunk::<HEADER>() else {
        return Answer::Unrelated;
    };
    let [first, second, flags, result, questions @ ..] = header;
    let is_answer = flags & 0x80 != 0;
    // Opcode QUERY, as it was asked.
    let is_query = flags & 0x78 == 0;
    if [*first, *second] != asked[..2] || !is_answer || !is_query {
        return Answer::Unrelated;
    }
    let code = result & 0x0f;
    let echoes = rest.len() >= question.len()
        && rest[..question.len()].eq_ignore_ascii_case(question)
        && questions[..2] == [0, 1];
    // A server that could not even read the query leaves the question out.
    let refuses_unread = questions[..2] == [0, 0] && code != 0;
    if !echoes && !refuses_unread {
        return Answer::Unrelated;
    }
    match code {
        0 | 3 => Answer::Answered,
        code => Answer::Failed(name_of(code)),
    }
}

fn name_of(code: u8) -> Cow<'static, str> {
    match code {
        1 => "FORMERR".into(),
        2 => "SERVFAIL".into(),
        4 => "NOTIMP".into(),
        5 => "REFUSED".into(),
        other => format!("result code {other}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: u16 = 0xbeef;
    const A: u16 = 1;
    const NS: u16 = 2;
    const AAAA: u16 = 28;

    #[test]
    fn a_query_byte_by_byte() {
        let expected = b"\xbe\xef\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x1c\x00\x01";
        assert_eq!(query(ID, "example.com", AAAA), expected);
        assert_eq!(query(ID, "example.com.", AAAA), expected);
        assert_eq!(query(ID, ".", NS)[12..], [0, 0, 2, 0, 1]);
    }

    /// `query` as a server sends it back, with this result code.
    fn reply(code: u8) -> Vec<u8> {
        let mut reply = query(ID, "example.com", A);
        reply[2] |= 0x80;
        reply[3] = 0x80 | code;
        reply
    }

    fn read(reply: &[u8]) -> Answer {
        answer(&query(ID, "example.com", A), reply)
    }

    #[test]
    fn the_result_code_decides() {
        assert_eq!(read(&reply(0)), Answer::Answered);
        assert_eq!(read(&reply(3)), Answer::Answered);
        for (code, name) in
            [(1, "FORMERR"), (2, "SERVFAIL"), (4, "NOTIMP"), (5, "REFUSED"), (9, "result code 9")]
        {
            assert_eq!(read(&reply(code)), Answer::Failed(name.into()));
        }
    }

    #[test]
    fn records_behind_the_question_and_the_case_of_letters_do_not_matter() {
        let mut long = reply(0);
        long[7] = 1;
        long.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01");
        assert_eq!(read(&long), Answer::Answered);
        let mut loud = reply(0);
        loud[HEADER..].make_ascii_uppercase();
        assert_eq!(read(&loud), Answer::Answered);
    }

    #[test]
    fn what_answers_another_query_is_unrelated() {
        let changed = |at: usize, byte: u8| {
            let mut reply = reply(0);
            reply[at] = byte;
            read(&reply)
        };
        // Another id, a query, another opcode, no question, another name, another type.
        for (at, byte) in [(0, 0), (2, 0x01), (2, 0xa1), (5, 0), (14, b'u'), (26, 28)] {
            assert_eq!(changed(at, byte), Answer::Unrelated, "{at}");
        }
        let unread = [0xbe, 0xef, 0x80, 0x01, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(read(&unread), Answer::Failed("FORMERR".into()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            cut in 0..64_usize,
        ) {
            read(&bytes);
            let mut damaged = reply(0);
            damaged.truncate(cut);
            // A truncated reply as short as this is never a valid one.
            let whole = damaged.len() == reply(0).len();
            prop_assert_eq!(read(&damaged), if whole { Answer::Answered } else { Answer::Unrelated });
            damaged.extend(bytes);
            read(&damaged);
        }
    }
}
