//! A Record as one line: JSON for machines, text for people. Its keys are fixed.

use std::fmt::Write;
use std::time::Duration;

use crate::border::record::Record;

/// The line, with its newline.
pub fn line(record: &Record, time: jiff::Timestamp, is_json: bool) -> Vec<u8> {
    let mut line = if is_json { json(record, time) } else { text(record, time) };
    line.push('\n');
    line.into_bytes()
}

fn json(record: &Record, time: jiff::Timestamp) -> String {
    let milliseconds = |time: Option<Duration>| time.map(milliseconds);
    // A map keeps no order, so the line is built in the order people read.
    let fields = [
        ("time", serde_json::json!(format!("{time:.3}"))),
        ("id", serde_json::json!(record.id)),
        ("listener", serde_json::json!(&*record.listener)),
        ("protocol", serde_json::json!(record.protocol.as_str())),
        ("client", serde_json::json!(record.client.to_string())),
        ("sender", serde_json::json!(record.sender.map(|sender| sender.to_string()))),
        ("local", serde_json::json!(record.local.to_string())),
        ("pool", serde_json::json!(record.pool.as_deref())),
        ("backend", serde_json::json!(record.backend.as_deref())),
        ("tried", serde_json::json!(record.tried)),
        ("stage", serde_json::json!(record.stage.as_str())),
        ("reason", serde_json::json!(record.reason.as_str())),
        ("client_received_bytes", serde_json::json!(record.bytes.client_received)),
        ("client_sent_bytes", serde_json::json!(record.bytes.client_sent)),
        ("backend_received_bytes", serde_json::json!(record.bytes.backend_received)),
        ("backend_sent_bytes", serde_json::json!(record.bytes.backend_sent)),
        ("connect_ms", serde_json::json!(milliseconds(record.connect))),
        ("first_byte_ms", serde_json::json!(milliseconds(record.first_byte))),
        ("duration_ms", serde_json::json!(milliseconds(Some(record.duration)))),
        ("server_name", serde_json::json!(record.server_name)),
        ("cause", serde_json::json!(record.cause)),
    ];
    let mut line = String::from("{");
    for (index, (key, value)) in fields.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(line, "{comma}\"{key}\":{value}");
    }
    line.push('}');
    line
}

fn text(record: &Record, time: jiff::Timestamp) -> String {
    let bytes = &record.bytes;
    let mut line = format!(
        "{time:.3} session {} {} {} -> {}/{} {} {} tried={} client={}/{} backend={}/{}",
        record.id,
        record.listener,
        record.client,
        record.pool.as_deref().unwrap_or("-"),
        record.backend.as_deref().unwrap_or("-"),
        record.stage.as_str(),
        record.reason.as_str(),
        record.tried,
        bytes.client_received,
        bytes.client_sent,
        bytes.backend_received,
        bytes.backend_sent,
    );
    for (name, time) in [("connect", record.connect), ("first_byte", record.first_byte)] {
        if let Some(time) = time {
            // Writing to a String cannot fail.
            let _ = write!(line, " {name}={}ms", milliseconds(time));
        }
    }
    let _ = write!(line, " duration={}ms", milliseconds(record.duration));
    if let Some(sender) = record.sender {
        let _ = write!(line, " sender={sender}");
    }
    if let Some(name) = &record.server_name {
        let _ = write!(line, " server_name={name}");
    }
    if let Some(cause) = &record.cause {
        let _ = write!(line, " cause={cause:?}");
    }
    line
}

/// Milliseconds with three decimals.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::border::addr::{ClientAddr, LocalAddr};
    use crate::border::record::{Bytes, CloseReason, Stage};

    fn record() -> Record {
        Record {
            id: 7,
            listener: "postgres".into(),
            protocol: crate::config::Protocol::Tcp,
            client: ClientAddr::new("192.0.2.1:4000".parse().unwrap()),
            sender: Some(ClientAddr::new("10.0.0.1:99".parse().unwrap())),
            local: LocalAddr::new("192.0.2.9:5432".parse().unwrap()),
            server_name: Some("db.example.com".to_owned()),
            cause: None,
            pool: Some("db".into()),
            backend: Some("db1".into()),
            tried: 1,
            stage: Stage::Relay,
            reason: CloseReason::ClientClosed,
            bytes: Bytes {
                client_received: 1,
                client_sent: 2,
                backend_received: 2,
                backend_sent: 1,
            },
            connect: Some(Duration::from_micros(1500)),
            first_byte: None,
            duration: Duration::from_secs(2),
        }
    }

    #[test]
    fn json_has_the_contracts_keys_in_order() {
        let line = line(&record(), jiff::Timestamp::UNIX_EPOCH, true);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            concat!(
                r#"{"time":"1970-01-01T00:00:00.000Z","id":7,"listener":"postgres","protocol":"tcp","#,
                r#""client":"192.0.2.1:4000","sender":"10.0.0.1:99","local":"192.0.2.9:5432","pool":"db","backend":"db1","tried":1,"#,
                r#""stage":"relay","reason":"client_closed","client_received_bytes":1,"client_sent_bytes":2,"#,
                r#""backend_received_bytes":2,"backend_sent_bytes":1,"connect_ms":1.5,"first_byte_ms":null,"#,
                r#""duration_ms":2000.0,"server_name":"db.example.com","cause":null}"#,
                "\n"
            )
        );
    }

    #[test]
    fn text_says_it_in_one_line() {
        let line = line(&record(), jiff::Timestamp::UNIX_EPOCH, false);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "1970-01-01T00:00:00.000Z session 7 postgres 192.0.2.1:4000 -> db/db1 relay client_closed tried=1 \
             client=1/2 backend=2/1 connect=1.5ms duration=2000ms sender=10.0.0.1:99 server_name=db.example.com\n"
        );
    }
}
