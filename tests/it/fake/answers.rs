//! What the fake provider says: good answers in every dialect, and every way to break one.

use super::{Behaviour, Bill, Gate, Request, Step};
use bytes::Bytes;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// A good answer of whatever kind was asked for, whole or broken off.
#[derive(Debug, Clone)]
pub struct Good {
    pub words: Vec<String>,
    /// Put on the bill; also told, unless `usage` says something else.
    pub bill: Bill,
    pub usage: Told,
    pub cut: Cut,
    pub pace: Pace,
    pub end: End,
    /// Added to the head.
    pub headers: Vec<(String, String)>,
    /// The model calls a tool instead of talking.
    pub calls_tool: bool,
}

/// What the provider says about usage.
#[derive(Debug, Clone)]
pub enum Told {
    Truth,
    Nothing,
    This(Value),
}

/// How a body is cut into writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Each event on its own; a document whole.
    Events,
    Whole,
    /// So many bytes in each piece, wherever that falls.
    Every(usize),
}

#[derive(Debug, Clone)]
pub enum Pace {
    None,
    /// Each piece but the first waits for the gate.
    Gated(Gate),
}

/// How the answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Good,
    /// A good end, and then the connection is closed without having said so.
    GoodThenClose,
    /// The head and this many pieces, then the connection closes.
    CloseAfter(usize),
    ResetAfter(usize),
    StallAfter(usize),
}

impl Default for Good {
    fn default() -> Good {
        Good {
            words: ["Hello", " from", " the", " fake", " provider", ", Zürich", "!"].map(str::to_owned).to_vec(),
            bill: Bill { input: 1_000, output: 100 },
            usage: Told::Truth,
            cut: Cut::Events,
            pace: Pace::None,
            end: End::Good,
            headers: Vec::new(),
            calls_tool: false,
        }
    }
}

impl From<Good> for Behaviour {
    fn from(good: Good) -> Behaviour {
        Behaviour::new(move |request| good.steps(request))
    }
}

impl Good {
    pub fn ending(end: End) -> Good {
        Good { end, ..Good::default() }
    }

    pub fn telling(usage: Told) -> Good {
        Good { usage, ..Good::default() }
    }

    pub fn billing(input: u64, output: u64) -> Good {
        Good { bill: Bill { input, output }, ..Good::default() }
    }

    pub fn gated(gate: &Gate) -> Good {
        Good { pace: Pace::Gated(gate.clone()), ..Good::default() }
    }

    /// What to do for this request.
    pub fn steps(&self, request: &Request) -> Vec<Step> {
        let asked = request.json();
        let streams = asked["stream"] == true;
        let kind = if streams { "text/event-stream; charset=utf-8" } else { "application/json" };
        let pieces =
            if streams { self.events(&request.path, &asked) } else { vec![self.document(&request.path, &asked)] };
        let length = pieces.iter().map(String::len).sum::<usize>();
        let mut head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nx-request-id: req_of_the_provider\r\n");
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        let framing =
            if streams { "transfer-encoding: chunked".to_owned() } else { format!("content-length: {length}") };
        write!(head, "{framing}\r\n\r\n").unwrap();
        let body: Vec<Vec<u8>> = match self.cut {
            Cut::Events => pieces.into_iter().map(String::into_bytes).collect(),
            Cut::Whole => vec![pieces.concat().into_bytes()],
            Cut::Every(size) => pieces.concat().into_bytes().chunks(size).map(<[u8]>::to_vec).collect(),
        };
        // A document in one piece is broken in its middle.
        let body = match (body.len(), self.end) {
            (1, End::CloseAfter(_) | End::ResetAfter(_) | End::StallAfter(_)) => {
                let (first, second) = body[0].split_at(body[0].len() / 2);
                vec![first.to_vec(), second.to_vec()]
            }
            _ => body,
        };
        let mut steps = vec![Step::Send(head.into())];
        let (most, last) = match self.end {
            End::Good => (usize::MAX, None),
            End::GoodThenClose => (usize::MAX, Some(Step::Close)),
            End::CloseAfter(pieces) => (pieces, Some(Step::Close)),
            End::ResetAfter(pieces) => (pieces, Some(Step::Reset)),
            End::StallAfter(pieces) => (pieces, Some(Step::Stall)),
        };
        for (n, piece) in body.into_iter().take(most).enumerate() {
            match &self.pace {
                Pace::Gated(gate) if n > 0 => steps.push(Step::Await(gate.clone())),
                _ => {}
            }
            steps.push(Step::Send(if streams { framed(&piece) } else { piece.into() }));
        }
        if streams && most == usize::MAX {
            steps.push(Step::Send(Bytes::from_static(b"0\r\n\r\n")));
        }
        // The bill is written before the first byte goes out, so that it stands when the client is done.
        steps.insert(0, Step::Bill(self.bill));
        steps.extend(last);
        steps
    }

    /// The events of a stream that was asked for like this.
    pub fn events(&self, path: &str, asked: &Value) -> Vec<String> {
        let model = asked["model"].as_str().unwrap_or_default();
        match path {
            path if path.ends_with("/responses") => self.response_events(model),
            path if path.ends_with("/chat/completions") => {
                let deltas = if self.calls_tool { tool_deltas() } else { self.word_deltas() };
                let last = if self.calls_tool { "tool_calls" } else { "stop" };
                self.chunks(
                    asked,
                    "chat.completion.chunk",
                    deltas,
                    json!({"index": 0, "delta": {}, "finish_reason": last}),
                )
            }
            _ => {
                let choice = |word: &String| json!({"index": 0, "text": word, "logprobs": null, "finish_reason": null});
                let last = json!({"index": 0, "text": "", "logprobs": null, "finish_reason": "stop"});
                self.chunks(asked, "text_completion", self.words.iter().map(choice).collect(), last)
            }
        }
    }

    fn word_deltas(&self) -> Vec<Value> {
        let delta = |delta: Value| json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": null});
        let mut deltas = vec![delta(json!({"role": "assistant", "content": ""}))];
        deltas.extend(self.words.iter().map(|word| delta(json!({"content": word}))));
        deltas
    }

    fn chunks(&self, asked: &Value, object: &str, choices: Vec<Value>, last: Value) -> Vec<String> {
        let asks_usage = asked["stream_options"]["include_usage"] == true;
        let chunk = |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({
                "id": "chatcmpl-1", "object": object, "created": 1_790_000_000, "model": asked["model"],
                "service_tier": "default", "choices": choices,
            });
            if asks_usage {
                chunk["usage"] = usage.unwrap_or_default();
            }
            format!("data: {chunk}\n\n")
        };
        let mut events: Vec<String> =
            choices.into_iter().chain([last]).map(|choice| chunk(json!([choice]), None)).collect();
        if asks_usage && let Some(usage) = self.usage("prompt_tokens", "completion_tokens") {
            events.push(chunk(json!([]), Some(usage)));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }

    fn response_events(&self, model: &str) -> Vec<String> {
        let text = self.words.concat();
        let event = |n: usize, kind: &str, rest: Value| {
            let mut data = json!({"type": kind, "sequence_number": n});
            data.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            format!("event: {kind}\ndata: {data}\n\n")
        };
        let item = |content: Value, status: &str| json!({"type": "message", "id": "msg_1", "status": status, "role": "assistant", "content": content});
        let part = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
        let mut kinds = vec![
            ("response.created", json!({"response": self.response(model, "in_progress")})),
            ("response.output_item.added", json!({"output_index": 0, "item": item(json!([]), "in_progress")})),
            (
                "response.content_part.added",
                json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "part": part}),
            ),
        ];
        for word in &self.words {
            let delta =
                json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": word, "logprobs": []});
            kinds.push(("response.output_text.delta", delta));
        }
        let done = json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "text": text, "logprobs": []});
        kinds.push(("response.output_text.done", done));
        kinds.push(("response.completed", json!({"response": self.response(model, "completed")})));
        kinds.into_iter().enumerate().map(|(n, (kind, rest))| event(n, kind, rest)).collect()
    }

    /// The document of an answer that was asked for like this.
    pub fn document(&self, path: &str, asked: &Value) -> String {
        let model = &asked["model"];
        let mut document = match path {
            path if path.ends_with("/responses") => self.response(model.as_str().unwrap_or_default(), "completed"),
            path if path.ends_with("/embeddings") => json!({
                "object": "list", "model": model,
                "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 1.0]}],
            }),
            path if path.ends_with("/chat/completions") => {
                let (message, reason) = if self.calls_tool {
                    (json!({"role": "assistant", "content": null, "tool_calls": [tool_call()]}), "tool_calls")
                } else {
                    (json!({"role": "assistant", "content": self.words.concat()}), "stop")
                };
                json!({
                    "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000, "model": model,
                    "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": reason}],
                })
            }
            _ => json!({
                "id": "cmpl-1", "object": "text_completion", "created": 1_790_000_000, "model": model,
                "choices": [{"index": 0, "text": self.words.concat(), "logprobs": null, "finish_reason": "stop"}],
            }),
        };
        if !path.ends_with("/responses")
            && let Some(usage) = self.usage("prompt_tokens", "completion_tokens")
        {
            document["usage"] = usage;
        }
        document.to_string()
    }

    fn response(&self, model: &str, status: &str) -> Value {
        let content = json!([{"type": "output_text", "annotations": [], "logprobs": [], "text": self.words.concat()}]);
        let message =
            json!({"type": "message", "id": "msg_1", "status": status, "role": "assistant", "content": content});
        let complete = status == "completed";
        let usage = complete.then(|| self.usage("input_tokens", "output_tokens")).flatten();
        json!({
            "id": "resp_1", "object": "response", "created_at": 1_790_000_000, "status": status, "error": null,
            "incomplete_details": null, "instructions": null, "model": model,
            "output": if complete { json!([message]) } else { json!([]) },
            "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "temperature": 1.0, "top_p": 1.0,
            "usage": usage, "metadata": {},
        })
    }

    fn usage(&self, input: &str, output: &str) -> Option<Value> {
        let Bill { input: sent, output: written } = self.bill;
        match &self.usage {
            Told::Nothing => None,
            Told::This(usage) => Some(usage.clone()),
            Told::Truth => Some(json!({
                input: sent, output: written, "total_tokens": sent + written,
                format!("{input}_details"): {"cached_tokens": 0},
                format!("{output}_details"): {"reasoning_tokens": 0},
            })),
        }
    }
}

fn tool_call() -> Value {
    json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Zürich\"}"}})
}

fn tool_deltas() -> Vec<Value> {
    let delta = |calls: Value| json!({"index": 0, "delta": calls, "logprobs": null, "finish_reason": null});
    let first =
        json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}});
    let mut deltas = vec![delta(json!({"role": "assistant", "content": null, "tool_calls": [first]}))];
    for part in ["{\"ci", "ty\":\"Zü", "rich\"}"] {
        deltas.push(delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})));
    }
    deltas
}

/// One HTTP/1.1 chunk.
pub fn framed(piece: &[u8]) -> Bytes {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat().into()
}

/// An answer with this status, and a body as OpenAI writes its errors.
pub fn status(status: u16) -> Behaviour {
    status_with(status, &[])
}

pub fn status_with(status: u16, headers: &[(&str, &str)]) -> Behaviour {
    status_saying(status, headers, &error_body(status))
}

/// An answer with this status and body.
pub fn status_saying(status: u16, headers: &[(&str, &str)], body: &str) -> Behaviour {
    let mut head =
        format!("HTTP/1.1 {status} Whatever\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    raw(format!("{head}\r\n{body}"))
}

/// The same on a connection that ends with it: the next request must make a new one.
pub fn last_status(code: u16) -> Behaviour {
    let answer = status(code);
    Behaviour::new(move |request| (answer.steps)(request).into_iter().chain([Step::Close]).collect())
}

/// The body that `status` sends.
pub fn error_body(status: u16) -> String {
    json!({"error": {"message": format!("the fake says {status}"), "type": "fake_error", "param": null, "code": null}})
        .to_string()
}

/// A stream that answers 200 and begins with an error.
pub fn error_first() -> Behaviour {
    let event = r#"data: {"error":{"message":"overloaded","type":"server_error"}}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = framed(format!("{event}\n\n").as_bytes());
    raw([head.as_bytes(), &body, b"0\r\n\r\n"].concat())
}

/// A good answer that is one document.
pub fn document(body: &Value) -> Vec<Step> {
    let body = body.to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    vec![Step::Send(format!("{head}{body}").into())]
}

/// A good answer in pieces.
pub fn stream(kind: &str, pieces: impl Iterator<Item = Vec<u8>>) -> Vec<Step> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
    let pieces = pieces.map(|piece| Step::Send(framed(&piece)));
    let end = Step::Send(Bytes::from_static(b"0\r\n\r\n"));
    [Step::Send(head.into())].into_iter().chain(pieces).chain([end]).collect()
}

/// These bytes and nothing else.
pub fn raw(bytes: impl Into<Bytes>) -> Behaviour {
    let bytes = bytes.into();
    Behaviour::new(move |_| vec![Step::Send(bytes.clone())])
}

pub fn raw_then(bytes: impl Into<Bytes>, step: Step) -> Behaviour {
    let bytes = bytes.into();
    Behaviour::new(move |_| vec![Step::Send(bytes.clone()), step.clone()])
}

pub fn only(step: Step) -> Behaviour {
    Behaviour::new(move |_| vec![step.clone()])
}

/// A stream of the same event so many times, and where it is counted what was sent of it.
pub fn long_stream(event: &str, times: usize) -> (Behaviour, Arc<AtomicUsize>) {
    let (event, count) = (framed(event.as_bytes()), Arc::default());
    let sent = Arc::clone(&count);
    let behaviour = Behaviour::new(move |_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let end = [&framed(LONG_STREAM_END.as_bytes())[..], b"0\r\n\r\n"].concat();
        vec![Step::Send(head.into()), Step::Repeat(event.clone(), times, Arc::clone(&count)), Step::Send(end.into())]
    });
    (behaviour, sent)
}

pub const LONG_STREAM_END: &str = "data: [DONE]\n\n";
