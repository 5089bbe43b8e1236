//! What most people do with a network: ask a server for something and get it, or send it something.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use ctwhy_linux::lab::Lab;

/// The port of the web.
pub(super) const PORT: u16 = 80;

const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";

/// The port of names.
const NAMES: u16 = 53;

/// How long a machine under load may take for what works.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection of the client's to the server.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(lab: &Lab, server: IpAddr) -> io::Result<Connection> {
        let to = SocketAddr::new(server, PORT);
        let listener = lab.in_node("server", || TcpListener::bind(to))??;
        let client = lab.in_node("client", || TcpStream::connect_timeout(&to, PATIENCE))??;
        // The client is connected, so somebody is there to be accepted, if not yet with a proxy between.
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        Ok(Connection { client, server })
    }
}

/// The client asks the server for a page by this name; `during` is called while the connection is open. The status line
/// that came.
pub(super) fn get(
    lab: &Lab,
    server: IpAddr,
    name: &str,
    during: impl FnOnce() -> io::Result<()>,
) -> io::Result<String> {
    let mut connection = Connection::open(lab, server)?;
    // No two requests are alike, so that each connection is known by what it carries.
    let asked = format!("GET /{name} HTTP/1.0\r\n\r\n");
    connection.client.write_all(asked.as_bytes())?;
    let mut request = vec![0; asked.len()];
    connection.server.read_exact(&mut request)?;
    connection.server.write_all(ANSWER)?;
    let mut answer = [0; ANSWER.len()];
    connection.client.read_exact(&mut answer)?;
    during()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The client asks the server something in a datagram; whether the answer came.
pub(super) fn ask(lab: &Lab, server: IpAddr) -> io::Result<bool> {
    let to = SocketAddr::new(server, NAMES);
    let names = lab.in_node("server", || UdpSocket::bind(to))??;
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let client = lab.in_node("client", || -> io::Result<UdpSocket> {
        let client = UdpSocket::bind((any, 0))?;
        client.connect(to)?;
        Ok(client)
    })??;
    for socket in [&names, &client] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    let (question, answer) = (format!("what is {server} called?"), format!("{server} is the server"));
    client.send(question.as_bytes())?;
    let mut buffer = [0; 256];
    let (_, from) = names.recv_from(&mut buffer)?;
    names.send_to(answer.as_bytes(), from)?;
    let length = client.recv(&mut buffer)?;
    Ok(buffer.get(..length) == Some(answer.as_bytes()))
}

/// What became of an upload, in bytes.
pub(super) struct Upload {
    /// Those that arrived.
    pub(super) arrived: usize,
    /// Those that were sent.
    pub(super) of: usize,
}

/// The client sends so many bytes, and the server reads until all are there or nothing came for `patience`.
pub(super) fn upload(lab: &Lab, server: IpAddr, of: usize, patience: Duration) -> io::Result<Upload> {
    let Connection { mut client, mut server } = Connection::open(lab, server)?;
    server.set_read_timeout(Some(patience))?;
    // What the socket does not take at once is not sent: it is more than is needed to see a stall.
    client.set_nonblocking(true)?;
    let of = client.write(&vec![b'a'; of])?;
    let mut arrived = 0;
    let mut buffer = vec![0; 64 << 10];
    while arrived < of {
        match server.read(&mut buffer) {
            Ok(0) => break,
            Ok(more) => arrived += more,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Upload { arrived, of })
}
