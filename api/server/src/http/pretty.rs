//! JSON for people: a field a line, indented by two spaces, for those who ask for it and for programs that people read.
//!
//! It works on bytes as they go by, so that a long list is still made piece by piece; what it is given is JSON that this program made.

use super::query::Query;

/// Programs that show an answer as it came.
const SHOWN_TO_PEOPLE: &[&str] = &["curl", "Wget", "Mozilla/5.0"];

/// Whether the answer is to be indented: the query says so, or `Accept`, or who asks.
pub(crate) fn asked(query: &Query, accept: &str, user_agent: &str) -> bool {
    match query.text("pretty") {
        "" => {
            accept
                .split([',', ';'])
                .any(|parameter| parameter.trim() == "pretty=1")
                || SHOWN_TO_PEOPLE
                    .iter()
                    .any(|program| user_agent.starts_with(program))
        }
        text => matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

/// Where in the JSON the last piece ended.
#[derive(Debug, Default)]
pub(crate) struct Indenter {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// A map or list was opened, and nothing of it was seen yet: an empty one stays on its line.
    opened: bool,
}

impl Indenter {
    /// The next piece, indented. White space between values is dropped.
    pub fn push(&mut self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() + json.len() / 2);
        for byte in json.iter().copied() {
            self.take(byte, &mut out);
        }
        out
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            out.push(byte);
            self.in_string = byte != b'"' || self.escaped;
            self.escaped = byte == b'\\' && !self.escaped;
            return;
        }
        if byte.is_ascii_whitespace() {
            return;
        }
        let closes = matches!(byte, b'}' | b']');
        if closes {
            self.depth = self.depth.saturating_sub(1);
        }
        if self.opened != closes {
            self.line(out);
        }
        self.opened = matches!(byte, b'{' | b'[');
        out.push(byte);
        match byte {
            b'{' | b'[' => self.depth += 1,
            b',' => self.line(out),
            b':' => out.push(b' '),
            b'"' => self.in_string = true,
            _ => {}
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * self.depth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn indents_as_other_printers_do() {
        let rows: &[Value] = &[
            json!({}),
            json!([]),
            json!(7),
            json!({"a": {}, "b": [], "c": [1, -2.5e3, null, true], "d": {"e": [{"f": "g"}, {}]}}),
            json!({"q\"{": "a\\\"},[ :\n", "\\": "\\\\", "ä": " "}),
        ];
        for value in rows {
            let expected = serde_json::to_string_pretty(value).unwrap();
            let compact = format!("{value}\n");
            for size in [1, 3, compact.len()] {
                let mut indenter = Indenter::default();
                let pieces = compact.as_bytes().chunks(size);
                let printed: Vec<u8> = pieces.flat_map(|piece| indenter.push(piece)).collect();
                assert_eq!(String::from_utf8(printed).unwrap(), expected);
            }
        }
    }

    #[test]
    fn is_asked_for() {
        let rows = [
            ("", "", "kubectl/v1.36.2", false),
            ("", "", "curl/8.5.0", true),
            ("pretty=false", "", "curl/8.5.0", false),
            ("pretty=true", "", "", true),
            ("pretty=1", "", "", true),
            ("pretty=yes", "", "curl/8.5.0", false),
            ("pretty=", "", "Mozilla/5.0 (X11)", true),
            ("", "application/json;pretty=1", "", true),
            ("", "application/json;pretty=0", "", false),
        ];
        for (query, accept, user_agent, expected) in rows {
            let query_read = Query::parse(query);
            assert_eq!(
                asked(&query_read, accept, user_agent),
                expected,
                "{query} {accept} {user_agent}"
            );
        }
    }
}
