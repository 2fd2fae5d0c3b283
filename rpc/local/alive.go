package local

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/freshet-io/freshet"
)

// A write waits as long as the node that takes it runs, as over the network: the node
// may wait for room, or for the storage. A node that does not even greet for so long
// has been stopped, or hangs.
const silentFor = 20 * time.Second

// hear waits for the node's next word of a write.
func (w *outgoing) hear(ctx context.Context) (answer, error) {
	alive := time.Now() //nolint:forbidigo // the kernel's clock
	for {
		if err := w.c.c.SetReadDeadline(time.Now().Add(w.silent / 4)); err != nil { //nolint:forbidigo // as above
			return answer{}, err
		}
		if ctx.Err() != nil { // which ends the wait only if it comes after the deadline was set
			return answer{}, context.Cause(ctx)
		}
		a, err := w.c.receive(w.b, w.control)
		if !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return a, err
		}
		switch now := time.Now(); { //nolint:forbidigo // as above
		case w.greets(ctx):
			alive = now
		case now.Sub(alive) >= w.silent:
			return answer{}, freshet.Errorf(freshet.KindUnavailable, "write file", "", "it has not answered for %s", w.silent)
		}
	}
}

// greets reports whether the node takes connections.
func (w *outgoing) greets(ctx context.Context) bool {
	c, err := dial(ctx, w.path, w.node, nil)
	if err == nil {
		_ = c.c.Close()
		return true
	}
	// One that has too many clients ends the connection.
	return errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
