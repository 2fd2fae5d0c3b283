// Package client owns files over a region: finding the bytes of a range,
// choosing nodes, going on elsewhere when one fails, and never joining bytes of
// two versions. It knows coordinators and nodes only by the interfaces below and
// keeps nothing but answers of coordinators, under leases.
package client

import (
	"context"
	"io"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/rpc"
)

// Nodes is how the client reaches cache nodes.
type Nodes interface {
	ReadBlock(ctx context.Context, n freshet.Node, q freshet.BlockRead) (freshet.BlockStream, error)
	WriteFile(ctx context.Context, t freshet.Ticket, body io.Reader, length int64) (freshet.Completed, error)
}

// Options guide a Client; the zero value is usable.
type Options struct {
	// Host is the locality of the caller: nodes on it are preferred.
	Host string
	// Rack and Zone of the caller; "" for those of a node on its host.
	Rack, Zone string
	// Node is preferred for writes, if set: a node in the caller's own process.
	Node freshet.NodeID
	// ReadAhead is how many blocks ahead of a sequential reader nodes are asked to
	// fetch what none of them holds. 0 is 2; negative: none.
	ReadAhead int
	// Leases keep answers of the coordinators; nil keeps none. Somebody else runs them.
	Leases *Leases
}

const defaultReadAhead = 2

// Client reads and writes files of one region. Safe for concurrent use.
type Client struct {
	rpc.Namespace

	nodes  Nodes
	near   near   // nil if the nodes are no such thing
	ahead  ahead  // as above
	shared shared // as above
	opts   Options
}

// New returns a Client. Nodes may also have the methods Near and ReadBlockAt, by which
// blocks on this host are read without a message, ReadRange and ReadRanges, by which
// small reads share messages, and ReadAhead.
func New(ns rpc.Namespace, nodes Nodes, opts Options) *Client {
	c := &Client{Namespace: ns, nodes: nodes, opts: opts}
	c.near, _ = nodes.(near)     // not all have
	c.ahead, _ = nodes.(ahead)   // what these do
	c.shared, _ = nodes.(shared) // as above
	return c
}

// Locate answers where the bytes of a range are, from what is kept if anything is.
func (c *Client) Locate(ctx context.Context, q freshet.LocateQuery) (freshet.Location, error) {
	if c.opts.Leases == nil {
		return c.Namespace.Locate(ctx, q)
	}
	return c.opts.Leases.Locate(ctx, c.Namespace, q)
}

// Stat returns what is known of p, from what is kept if anything is.
func (c *Client) Stat(ctx context.Context, p freshet.Path, opts freshet.ReadOptions) (freshet.Status, error) {
	if c.opts.Leases == nil {
		return c.Namespace.Stat(ctx, p, opts)
	}
	return c.opts.Leases.Stat(ctx, c.Namespace, p, opts)
}

// ReadOptions guide Open.
type ReadOptions struct {
	freshet.ReadOptions

	Offset int64
	Length int64 // negative: to the end
	Read   freshet.ReadType
}

// WriteOptions guide Write.
type WriteOptions struct {
	// Op makes a retry of the whole write safe; made if zero.
	Op freshet.OpID
	// Length is the declared length in bytes, negative if unknown.
	Length int64
	// Write is cache_through by default; freshet.ByPolicy leaves it to the policy
	// of the path.
	Write freshet.WriteType
	// BlockSize is that of the file's blocks in bytes; 0 leaves it to the policy of
	// the path.
	BlockSize int64
	// DurableReplicas is on how many nodes a file of must_cache or async_through is
	// durable when Write returns; 0 leaves it to the policy of the path. Other write types
	// refuse it.
	DurableReplicas int
}

// Whole reads a whole file.
func Whole() ReadOptions { return ReadOptions{Length: -1} }

// Write streams body into the file at p, which becomes visible, all at once,
// when Write returns. An error of kind deadline means that the outcome is not
// known.
func (c *Client) Write(ctx context.Context, p freshet.Path, body io.Reader, opts WriteOptions) (freshet.Completed, error) {
	op := opts.Op
	if op.IsZero() {
		op = freshet.OpID(uuid.Must(uuid.NewV7()))
	}
	q := freshet.BeginWriteQuery{
		Op: op, Path: p, Write: opts.Write, BlockSize: opts.BlockSize, Host: c.opts.Host,
		Rack: c.opts.Rack, Zone: c.opts.Zone, Node: c.opts.Node, DurableReplicas: opts.DurableReplicas,
	}
	if opts.Length >= 0 {
		q.Length = &opts.Length
	}
	a, err := c.BeginWrite(ctx, q)
	if err != nil || a.Done {
		return a.Completed, err
	}
	done, err := c.nodes.WriteFile(ctx, a.Ticket, body, opts.Length)
	if err == nil {
		return done, nil
	}
	return c.settle(ctx, q, err)
}

// settle asks what became of a write whose node did not answer: it may have
// finished all the same. A definite refusal stays what it is.
func (c *Client) settle(ctx context.Context, q freshet.BeginWriteQuery, cause error) (freshet.Completed, error) {
	if !freshet.IsKind(cause, freshet.KindUnavailable, freshet.KindDeadline) {
		return freshet.Completed{}, cause
	}
	if ctx.Err() == nil {
		// The same operation again returns the recorded outcome if there is one.
		if a, err := c.BeginWrite(ctx, q); err == nil && a.Done {
			return a.Completed, nil
		}
		if err := c.AbortWrite(ctx, q.Op); err == nil {
			return freshet.Completed{}, freshet.Errorf(freshet.KindUnavailable, "write", q.Path, "nothing was written: %w", cause)
		}
	}
	return freshet.Completed{}, freshet.Errorf(freshet.KindDeadline, "write", q.Path,
		"the outcome is unknown; look at the file before you write again: %w", cause)
}
