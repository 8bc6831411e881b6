//! A proxy on the way to the provider, on raw TCP: it speaks both `CONNECT` and SOCKS5, and leads every name
//! to one place on this machine.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does about those who ask.
#[derive(Debug, Clone)]
pub enum Manner {
    /// Leads everybody on.
    Open,
    /// Leads those on who show this user and password.
    Guarded(&'static str, &'static str),
    /// Answers this status, or refuses by SOCKS5's ruleset.
    Refuse(u16),
    /// Says nothing.
    Hang,
    /// Hangs up when it was asked.
    HangUp,
}

/// One wish for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub target: String,
    /// User and password, with a colon between them.
    pub credential: Option<String>,
}

/// A running proxy. It ends with the runtime it was started on.
pub struct FakeProxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    manner: Mutex<Manner>,
    asked: Mutex<Vec<Asked>>,
    cut: watch::Sender<()>,
    /// Where every way leads.
    end: u16,
}

impl FakeProxy {
    /// A proxy that leads to this port.
    pub async fn start(end: u16) -> FakeProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (manner, cut) = (Mutex::new(Manner::Open), watch::channel(()).0);
        let shared = Arc::new(Shared { manner, asked: Mutex::default(), cut, end });
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&accepting);
                tokio::spawn(async move { serve(stream, &shared).await });
            }
        });
        FakeProxy { port, shared }
    }

    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// The wishes since this was asked last.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }

    /// Ends every connection that was made through it.
    pub fn cut(&self) {
        self.shared.cut.send_replace(());
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    let manner = shared.manner.lock().unwrap().clone();
    let is_open = match first[0] {
        5 => greet_socks(&mut stream, shared, &manner).await?,
        _ => greet_http(&mut stream, shared, &manner).await?,
    };
    if !is_open {
        return Ok(());
    }
    let mut cut = shared.cut.subscribe();
    let mut origin = TcpStream::connect(("127.0.0.1", shared.end)).await?;
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut stream, &mut origin) => copied.map(|_| ()),
        _ = cut.changed() => Ok(()),
    }
}

async fn greet_http(stream: &mut TcpStream, shared: &Shared, manner: &Manner) -> io::Result<bool> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await?));
    }
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned();
    assert!(head.contains(&format!("\r\nHost: {target}\r\n")), "{head}");
    let basic = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: Basic "));
    let credential = basic.map(decode);
    let is_known = |user: &str, password: &str| credential.as_deref() == Some(&*format!("{user}:{password}"));
    let status = match manner {
        Manner::Open => 200,
        Manner::Guarded(user, password) if is_known(user, password) => 200,
        Manner::Guarded(..) => 407,
        Manner::Refuse(status) => *status,
        Manner::Hang | Manner::HangUp => 0,
    };
    shared.asked.lock().unwrap().push(Asked { target, credential });
    match manner {
        Manner::Hang => std::future::pending().await,
        Manner::HangUp => return Ok(false),
        _ => {}
    }
    stream.write_all(format!("HTTP/1.1 {status} Whatever\r\nVia: fake\r\n\r\n").as_bytes()).await?;
    Ok(status == 200)
}

async fn greet_socks(stream: &mut TcpStream, shared: &Shared, manner: &Manner) -> io::Result<bool> {
    assert_eq!(stream.read_u8().await?, 5);
    let methods = read_text(stream).await?.into_bytes();
    if matches!(manner, Manner::Hang) {
        std::future::pending::<()>().await;
    }
    let mut credential = None;
    if methods.contains(&2) {
        stream.write_all(&[5, 2]).await?;
        assert_eq!(stream.read_u8().await?, 1);
        let (user, password) = (read_text(stream).await?, read_text(stream).await?);
        credential = Some(format!("{user}:{password}"));
        let is_known = match manner {
            Manner::Guarded(user, password) => credential.as_deref() == Some(&*format!("{user}:{password}")),
            _ => true,
        };
        stream.write_all(&[1, u8::from(!is_known)]).await?;
        if !is_known {
            return Ok(false);
        }
    } else if matches!(manner, Manner::Guarded(..)) {
        stream.write_all(&[5, 255]).await?;
        return Ok(false);
    } else {
        stream.write_all(&[5, 0]).await?;
    }
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let host = match head {
        [5, 1, 0, 3] => read_text(stream).await?,
        [5, 1, 0, 1] => std::net::Ipv4Addr::from(stream.read_u32().await?).to_string(),
        odd => panic!("{odd:?}"),
    };
    let target = format!("{host}:{}", stream.read_u16().await?);
    shared.asked.lock().unwrap().push(Asked { target, credential });
    let code = match manner {
        Manner::HangUp => return Ok(false),
        Manner::Refuse(_) => 2,
        _ => 0,
    };
    stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(code == 0)
}

/// A text with its length before it.
async fn read_text(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8(text).unwrap())
}

fn decode(text: &str) -> String {
    String::from_utf8(BASE64.decode(text).unwrap()).unwrap()
}
