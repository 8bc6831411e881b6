//! A client that sees and sends every byte.

use crate::house::{House, Reply, soon};
use bytes::{Buf, Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection to the proxy.
pub struct Raw {
    stream: TcpStream,
    buffer: BytesMut,
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Raw {
    pub async fn connect(house: &House) -> Raw {
        let stream = TcpStream::connect(("127.0.0.1", house.proxy_port())).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream, buffer: BytesMut::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends as much as is taken.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// The next head; `None` if the connection ends instead.
    pub async fn head(&mut self) -> Option<Head> {
        soon("an answer's head", async {
            loop {
                if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head = self.buffer.split_to(end + 4);
                    return Some(Head::parse(&head));
                }
                if !self.more().await {
                    return None;
                }
            }
        })
        .await
    }

    /// The next whole answer.
    pub async fn reply(&mut self) -> Reply {
        let head = self.head().await.expect("an answer");
        let length = head.headers.get("content-length").map(|value| value.to_str().unwrap().parse().unwrap());
        let body = match length {
            Some(length) => {
                while self.buffer.len() < length {
                    assert!(soon("the body", self.more()).await, "the answer was cut");
                }
                self.buffer.split_to(length).freeze()
            }
            None => {
                let (body, ended) = self.chunks().await;
                assert!(ended, "the answer was cut");
                body
            }
        };
        Reply { status: head.status, headers: head.headers, body }
    }

    /// One chunk of a chunked body; `None` at its end, and `Err` where the connection was cut.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ()> {
        soon("a chunk", async {
            let end = loop {
                match self.buffer.windows(2).position(|window| window == b"\r\n") {
                    Some(end) => break end,
                    None if self.more().await => {}
                    None => return Err(()),
                }
            };
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[..end]).unwrap(), 16).unwrap();
            while self.buffer.len() < end + 2 + size + 2 {
                if !self.more().await {
                    return Err(());
                }
            }
            self.buffer.advance(end + 2);
            let chunk = self.buffer.split_to(size).freeze();
            self.buffer.advance(2);
            Ok((size > 0).then_some(chunk))
        })
        .await
    }

    /// What is left of a chunked body, and whether it came to a good end.
    pub async fn chunks(&mut self) -> (Bytes, bool) {
        let mut body = BytesMut::new();
        loop {
            match self.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return (body.freeze(), true),
                Err(()) => return (body.freeze(), false),
            }
        }
    }

    /// What has come, counted and forgotten; `None` at the connection's end.
    pub async fn take(&mut self) -> Option<usize> {
        if self.buffer.is_empty() && !self.more().await {
            return None;
        }
        Some(std::mem::take(&mut self.buffer).len())
    }

    /// Reads a little.
    pub async fn more(&mut self) -> bool {
        !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(0) | Err(_))
    }
}

impl Head {
    fn parse(bytes: &[u8]) -> Head {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let mut lines = text.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            headers.append(name.parse::<HeaderName>().unwrap(), value.trim().parse().unwrap());
        }
        Head { status, headers, text }
    }
}

/// A request with a length, as text.
pub fn request(path: &str, key: &str, more: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: tollgate\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}
