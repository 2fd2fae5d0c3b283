package rest

import (
	"io"
	"net"
)

// vectorBytes is how much one system call is given: a call for each piece of a block in
// memory costs a fifth of what sending it costs.
const vectorBytes = 16 << 20

// pieced is a source of bytes that lie in memory in several places.
type pieced interface {
	io.WriterTo
	// Pieces returns up to n of the next bytes where they lie, none if there are none
	// that lie anywhere.
	Pieces(n int64) [][]byte
}

// Vectored returns l with connections that send bytes that lie in several places by
// one system call. It is for servers without TLS.
func Vectored(l net.Listener) net.Listener { return vectored{l} }

type vectored struct{ net.Listener }

// Accept implements net.Listener.
func (l vectored) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if t, ok := c.(*net.TCPConn); ok {
		return &vectorConn{t}, err
	}
	return c, err
}

// vectorConn is a connection to which the server of net/http hands over sources.
type vectorConn struct{ *net.TCPConn }

// ReadFrom implements io.ReaderFrom.
func (c *vectorConn) ReadFrom(r io.Reader) (int64, error) {
	src, ok := r.(pieced)
	if !ok {
		return c.TCPConn.ReadFrom(r)
	}
	total := int64(0)
	for {
		bufs := net.Buffers(src.Pieces(vectorBytes))
		if len(bufs) == 0 {
			n, err := src.WriteTo(struct{ io.Writer }{c.TCPConn})
			return total + n, err
		}
		n, err := bufs.WriteTo(c.TCPConn)
		if total += n; err != nil {
			return total, err
		}
	}
}
