//! `${VAR}`, `${VAR:-default}`, `${VAR:?message}` and `$$` in the values of a file, before their type is
//! read. The environment is a parameter; keys are never substituted.

use super::fault::{Code, Fault, Faults, plain, quote};
use super::tree::{Node, Span, Value};

pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable may hold a long list, but a file must not grow without bound through its variables.
const MAX_LENGTH: usize = 64 << 10;

/// Replaces in every value of the tree.
pub fn substitute(node: &mut Node, env: Environment, faults: &mut Faults) {
    match &mut node.value {
        Value::Mapping(entries) => {
            entries.iter_mut().for_each(|(_, child)| substitute(child, env, faults));
        }
        Value::Sequence(items) => {
            items.iter_mut().for_each(|child| substitute(child, env, faults));
        }
        Value::Scalar(text) if text.contains('$') => match expand(text, env, node.span) {
            Ok(expanded) => *text = expanded,
            Err(fault) => {
                faults.push(*fault);
                node.value = Value::Unreadable;
            }
        },
        Value::Null | Value::Scalar(_) | Value::Unreadable => {}
    }
}

fn expand(text: &str, env: Environment, at: Span) -> Result<String, Box<Fault>> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some(end) = after.find('}') else {
                return Err(bad_variable(at, "`${` without its `}`"));
            };
            expanded.push_str(&value_of(&after[..end], env, at)?);
            rest = &after[end + 1..];
        } else {
            expanded.push('$');
        }
        if expanded.len() > MAX_LENGTH {
            let message = "the value grows beyond 64 KiB once its variables are put in";
            return Err(bad_variable(at, message));
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn value_of(inside: &str, env: Environment, at: Span) -> Result<String, Box<Fault>> {
    let length =
        inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inside.len());
    let (name, rest) = inside.split_at(length);
    let shown = quote(&format!("${{{inside}}}"));
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(bad_variable(at, format!("{shown} does not name a variable")));
    }
    // As in shells: with a colon, an empty variable counts as unset.
    let value = env(name);
    if rest.is_empty() {
        return value.ok_or_else(|| unset(name, at));
    }
    let value = value.filter(|value| !value.is_empty());
    if let Some(default) = rest.strip_prefix(":-") {
        return Ok(value.unwrap_or_else(|| default.to_owned()));
    }
    if let Some(message) = rest.strip_prefix(":?") {
        return value.ok_or_else(|| {
            let message = if message.is_empty() { "it must be set" } else { message };
            let text =
                format!("the environment variable {} is not set: {}", quote(name), plain(message));
            Box::new(Fault::error(Code::UnsetVariable, at, text, ""))
        });
    }
    Err(bad_variable(at, format!("{shown} cannot be read")))
}

fn unset(name: &str, at: Span) -> Box<Fault> {
    let message = format!("the environment variable {} is not set", quote(name));
    let hint = format!("set it, or give a default: `${{{name}:-…}}`");
    Box::new(Fault::error(Code::UnsetVariable, at, message, hint))
}

fn bad_variable(at: Span, message: impl Into<String>) -> Box<Fault> {
    let hint =
        "write `${NAME}`, `${NAME:-default}` or `${NAME:?message}`; for a plain `$` write `$$`";
    Box::new(Fault::error(Code::BadVariable, at, message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, Code> {
        let env = |name: &str| match name {
            "PORT" => Some("5432".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand(text, &env, Span::default()).map_err(|fault| fault.code)
    }

    #[test]
    fn variables_are_put_in() {
        assert_eq!(expanded(":${PORT}"), Ok(":5432".into()));
        assert_eq!(expanded("${PORT:-1}${NO:-2}${EMPTY:-3}${EMPTY}"), Ok("543223".into()));
        assert_eq!(expanded("$$${PORT}$$ $x $"), Ok("$5432$ $x $".into()));
        assert_eq!(expanded("$${PORT}"), Ok("${PORT}".into()));
    }

    #[test]
    fn what_is_missing_or_malformed_is_refused() {
        assert_eq!(expanded("${NO}"), Err(Code::UnsetVariable));
        assert_eq!(expanded("${NO:?why}"), Err(Code::UnsetVariable));
        assert_eq!(expanded("${EMPTY:?why}"), Err(Code::UnsetVariable));
        for bad in ["${", "${}", "${PORT", "${1}", "${PORT-x}", "${A B}"] {
            assert_eq!(expanded(bad), Err(Code::BadVariable), "{bad}");
        }
    }
}
