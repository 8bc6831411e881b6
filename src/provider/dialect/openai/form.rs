//! A request whose body is a form with a file: read where it stands, without copying the file.
//!
//! What is checked here must be what the provider goes by. So the form has to be plain: what parsers could read
//! in more than one way is refused.

use std::ops::Range;

use memchr::memmem;
use smallvec::SmallVec;

use super::super::call::{Call, Seams};
use super::super::members::{checked_model, differs_in_case};
use super::super::{CallError, Media, Weight};
use crate::governance::request::{Dialect, RequestKind};
use crate::governance::usage::ServiceTier;

/// As the standard has it.
const BOUNDARY_BYTES_MAX: usize = 70;
const PARTS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 4_096;
/// The members that may appear once.
const ONCE: [&str; 3] = ["model", "stream", "file"];

/// The boundary that a content type names, if it is that of a form.
pub fn boundary(content_type: &str) -> Option<&str> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let (name, value) = parameters.trim().split_once('=')?;
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&byte);
    let fits = (1..=BOUNDARY_BYTES_MAX).contains(&value.len()) && value.bytes().all(plain);
    (name.trim().eq_ignore_ascii_case("boundary") && fits).then_some(value)
}

/// Understands a form, or says what is wrong with it.
pub fn read(kind: RequestKind, boundary: &str, body: &[u8]) -> Result<Call, CallError> {
    let mut model = None;
    let mut stream = false;
    let mut weight = Weight::default();
    let mut media = Media::default();
    let mut seen = [false; ONCE.len()];
    for part in parts(boundary, body)? {
        let value = &body[part.at.clone()];
        if let Some(at) = ONCE.iter().position(|once| *once == part.name) {
            if std::mem::replace(&mut seen[at], true) {
                return Err(CallError::of(ONCE[at], "appears more than once"));
            }
        } else if let Some(once) = ONCE.iter().find(|once| differs_in_case(part.name, once)) {
            return Err(CallError::body(format!("a part is named like '{once}', but in another case")));
        }
        match part.name {
            "file" => media.sound_bytes = value.len() as u64,
            "model" => model = Some((checked_model(text("model", value)?.to_owned())?, part.at)),
            "stream" => {
                stream = match text("stream", value)? {
                    "true" | "True" | "1" => true,
                    "false" | "False" | "0" | "" => false,
                    _ => return Err(CallError::of("stream", "must be true or false")),
                };
            }
            "prompt" => weight.text_bytes = weight.text_bytes.saturating_add(value.len() as u64),
            _ => weight.aside_bytes = weight.aside_bytes.saturating_add(value.len() as u64),
        }
        weight.structures = weight.structures.saturating_add(1);
    }
    let (model, model_at) = model.ok_or_else(|| CallError::of("model", "is required"))?;
    if !seen[2] {
        return Err(CallError::of("file", "is required"));
    }
    Ok(Call {
        dialect: Dialect::OpenAi,
        format: Dialect::OpenAi,
        kind,
        model,
        stream,
        output_cap: None,
        choices: 1,
        thinking: 0,
        include_usage: false,
        refers_to_state: false,
        tier: ServiceTier::Standard,
        weight,
        media: Some(media),
        seams: Seams { model_at: SmallVec::from_buf([model_at]), is_form: true, ..Seams::default() },
    })
}

fn text<'b>(name: &str, value: &'b [u8]) -> Result<&'b str, CallError> {
    std::str::from_utf8(value).map_err(|_| CallError::of(name, "must be UTF-8"))
}

struct Part<'b> {
    name: &'b str,
    at: Range<usize>,
}

fn parts<'b>(boundary: &str, body: &'b [u8]) -> Result<Vec<Part<'b>>, CallError> {
    let fault = |what: &str| CallError::body(format!("the body is no plain form: {what}"));
    let delimiter = format!("\r\n--{boundary}");
    // The first one has no line before it.
    if !body.starts_with(&delimiter.as_bytes()[2..]) {
        return Err(fault("it does not begin with its boundary"));
    }
    let finder = memmem::Finder::new(&delimiter[1..]);
    let mut parts = Vec::new();
    let mut at = delimiter.len() - 2;
    loop {
        let rest = &body[at..];
        if let Some(after) = rest.strip_prefix(b"--") {
            return match after {
                b"" | b"\r\n" => Ok(parts),
                _ => Err(fault("something follows its end")),
            };
        }
        if !rest.starts_with(b"\r\n") {
            return Err(fault("a boundary is not followed by the end of its line"));
        }
        if parts.len() == PARTS_MAX {
            return Err(fault("it has too many parts"));
        }
        let head = at + 2;
        let window = &body[head..body.len().min(head + HEAD_BYTES_MAX)];
        let length = memmem::find(window, b"\r\n\r\n").ok_or_else(|| fault("a part has no head, or a long one"))?;
        let name = name(&body[head..head + length]).ok_or_else(|| fault("the head of a part is not understood"))?;
        let start = head + length + 4;
        let line = finder.find(&body[start..]).ok_or_else(|| fault("it has no end"))?;
        // To some a boundary may follow half the end of a line.
        let whole = line > 0 && body[start + line - 1] == b'\r';
        let length = if whole { line - 1 } else { return Err(fault("a boundary follows a bare line feed")) };
        parts.push(Part { name, at: start..start + length });
        at = start + length + delimiter.len();
    }
}

/// The name of a part, from its head.
fn name(head: &[u8]) -> Option<&str> {
    let mut name = None;
    for line in std::str::from_utf8(head).ok()?.split("\r\n") {
        let (field, value) = line.split_once(':')?;
        // A name with a blank before its colon, or a line folded, reads differently to different parsers.
        if field.is_empty() || !field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return None;
        }
        if value.contains(['\r', '\n', '\0']) {
            return None;
        }
        if field.eq_ignore_ascii_case("content-transfer-encoding") {
            return None;
        }
        if field.eq_ignore_ascii_case("content-disposition") && name.replace(disposed(value)?).is_some() {
            return None;
        }
    }
    name
}

/// The name in a disposition: `form-data; name="x"; filename="y"`.
fn disposed(value: &str) -> Option<&str> {
    let mut rest = value.trim().strip_prefix("form-data")?;
    let (mut name, mut file) = (None, false);
    while !rest.is_empty() {
        rest = rest.trim_start().strip_prefix(';')?.trim_start();
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(';').unwrap_or(after.len())),
        };
        // What a backslash means in a name is read in more than one way.
        match key {
            "name" if name.is_none() && !value.contains('\\') => name = Some(value),
            "filename" if !file && !value.ends_with('\\') => file = true,
            "filename*" => {}
            _ => return None,
        }
        rest = after;
    }
    // A file is a file, and everything else is not.
    name.filter(|name| !name.is_empty() && (*name == "file") == file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Rewrite;
    use bytes::Bytes;
    use proptest::prelude::*;

    const KIND: RequestKind = RequestKind::Transcription;

    fn part(head: &str, value: &[u8]) -> Vec<u8> {
        [format!("--B\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes(), value, b"\r\n"].concat()
    }

    fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let parts = parts.iter().flat_map(|(head, value)| part(head, value));
        parts.chain(b"--B--\r\n".iter().copied()).collect()
    }

    const FILE: (&str, &[u8]) = ("name=\"file\"; filename=\"a.wav\"", b"RIFF\r\n--b--\r\n");
    const MODEL: (&str, &[u8]) = ("name=\"model\"", b"openai/whisper-1");

    #[test]
    fn a_boundary_stands_in_the_content_type() {
        let check = |text: &str, expected| assert_eq!(boundary(text), expected, "{text}");
        check("multipart/form-data; boundary=abc", Some("abc"));
        check("Multipart/Form-Data;boundary=\"a=c\"", Some("a=c"));
        check("multipart/form-data", None);
        check("multipart/form-data; boundary=", None);
        check("multipart/form-data; boundary=a b", None);
        check("multipart/form-data; boundary=a; boundary=b", None);
        check("multipart/mixed; boundary=a", None);
        check(&format!("multipart/form-data; boundary={}", "a".repeat(71)), None);
    }

    #[test]
    fn the_model_may_come_after_the_file() {
        let prompt = ("name=\"prompt\"", &b"Z\xc3\xbcrich"[..]);
        for parts in [[FILE, MODEL, prompt], [MODEL, prompt, FILE]] {
            let body = Bytes::from(form(&parts));
            let call = read(KIND, "B", &body).unwrap();
            assert_eq!((&*call.model, call.stream, call.weight.text_bytes), ("openai/whisper-1", false, 7));
            assert_eq!(call.media.unwrap().sound_bytes, FILE.1.len() as u64);
            let same = Rewrite { model: "openai/whisper-1", ..Rewrite::default() };
            assert_eq!(call.rewrite(&body, same), body);
            let rewritten = call.rewrite(&body, Rewrite { model: "whisper \"1\"", ..Rewrite::default() });
            let expected = parts.map(|part| if part == MODEL { (part.0, &b"whisper \"1\""[..]) } else { part });
            assert_eq!(rewritten, form(&expected));
        }
        let streamed = form(&[FILE, MODEL, ("name=stream", b"true")]);
        assert!(read(KIND, "B", &streamed).unwrap().stream);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let check = |body: Vec<u8>, why: &str| {
            let error = read(KIND, "B", &body).unwrap_err();
            assert!(error.message.contains(why), "{error:?} {}", String::from_utf8_lossy(&body));
        };
        check(form(&[FILE]), "'model' is required");
        check(form(&[MODEL]), "'file' is required");
        check(form(&[FILE, MODEL, MODEL]), "'model' appears more than once");
        check(form(&[FILE, FILE, MODEL]), "'file' appears more than once");
        check(form(&[FILE, MODEL, ("name=\"Model\"", b"x")]), "in another case");
        check(form(&[FILE, ("name=\"model\"", b"")]), "must not be empty");
        check(form(&[FILE, ("name=\"model\"", b"\xff")]), "must be UTF-8");
        check(form(&[FILE, MODEL, ("name=\"stream\"", b"maybe")]), "must be true or false");
        for head in [
            "name=\"mo\\del\"",
            "name=\"model\"; name=\"x\"",
            "name*=utf-8''model",
            "name=\"model\"; filename=\"x\"",
            "name=\"file\"",
            "filename=\"x\"",
            "name=\"model",
            "name=\"model\"x",
            "name=\"x\"\r\nContent-Transfer-Encoding: base64",
            "name=\"x\"\r\nContent-Disposition: form-data; name=\"model\"",
            "name=\"x\"\r\n folded: y",
            "name=\"x\"\nContent-Disposition: form-data; name=\"model\"",
        ] {
            check(form(&[FILE, MODEL, (head, b"x")]), "the head of a part");
        }
        let good = form(&[FILE, MODEL]);
        check([b"preamble\r\n", &good[..]].concat(), "does not begin");
        check([&good[..], b"more"].concat(), "something follows");
        check(good[..good.len() - 8].to_vec(), "no end");
        check(form(&[FILE, ("name=\"model\"", b"x\r\n--B \r\n")]), "is not followed by the end of its line");
        check(form(&[FILE, MODEL].into_iter().chain([("name=\"x\"", &b"y"[..]); 63]).collect::<Vec<_>>()), "too many");
        check(form(&[(FILE.0, b"x\n--B\r\n"), MODEL]), "bare line feed");
        check(Vec::new(), "does not begin");
    }

    proptest! {
        #[test]
        fn any_file_and_any_model_come_through(file: Vec<u8>, model in "[a-z0-9/._-]{1,40}", new in "[a-z\"\\\\ü-]{1,20}") {
            prop_assume!(memmem::find(&file, b"--B").is_none() && crate::governance::model_name::fault(&model).is_none());
            let body = Bytes::from(form(&[(FILE.0, &file), ("name=\"model\"", model.as_bytes())]));
            let call = read(KIND, "B", &body).unwrap();
            prop_assert_eq!((&*call.model, call.media.unwrap().sound_bytes), (&*model, file.len() as u64));
            let sent = call.rewrite(&body, Rewrite { model: &new, ..Rewrite::default() });
            prop_assert_eq!(sent, form(&[(FILE.0, &file), ("name=\"model\"", new.as_bytes())]));
        }

        #[test]
        fn no_body_is_too_odd(body: Vec<u8>, cut: prop::sample::Index) {
            let _ = read(KIND, "B", &body);
            let _ = read(KIND, "B", &[b"--B\r\n", &body[..]].concat());
            let good = form(&[FILE, MODEL]);
            let cut = cut.index(good.len() - 2);
            prop_assert!(read(KIND, "B", &good[..cut]).is_err());
        }
    }
}
