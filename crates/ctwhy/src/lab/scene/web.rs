//! What most people do with a network: ask a server for something and get it, or send it something.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ctwhy_linux::lab::Lab;

/// The port of the web.
pub(super) const PORT: u16 = 80;

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";

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

/// The client asks the server for a page; `during` is called while the connection is open. The status line that came.
pub(super) fn get(lab: &Lab, server: IpAddr, during: impl FnOnce() -> io::Result<()>) -> io::Result<String> {
    let mut connection = Connection::open(lab, server)?;
    connection.client.write_all(REQUEST)?;
    let mut request = [0; REQUEST.len()];
    connection.server.read_exact(&mut request)?;
    connection.server.write_all(ANSWER)?;
    let mut answer = [0; ANSWER.len()];
    connection.client.read_exact(&mut answer)?;
    during()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
