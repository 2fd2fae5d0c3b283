package hdfs

import (
	"context"
	"slices"
	"sync"
	"time"
)

// idleTime is how long an unused connection is kept: the library renews leases
// over each of them once a second, whether there are any or not.
const idleTime = 15 * time.Second

// pool keeps connections to the NameNode for the next call. It makes as many as
// are in use at a time, and keeps up to size of them.
type pool struct {
	cfg *config

	mu     sync.Mutex
	idle   []*client
	timers map[*client]*time.Timer
	all    map[*client]struct{}
	first  string // NameNode that answered last
	closed bool
	ending sync.WaitGroup
}

func newPool(cfg *config) *pool {
	return &pool{cfg: cfg, timers: map[*client]*time.Timer{}, all: map[*client]struct{}{}}
}

// get returns a client that works as far as is known, for one user. Its user
// gives it back by put.
func (p *pool) get(ctx context.Context) (*client, error) {
	p.mu.Lock()
	for n := len(p.idle); n > 0; n = len(p.idle) {
		c := p.idle[n-1]
		p.drop(c)
		if c.usable() {
			p.mu.Unlock()
			return c, nil
		}
		delete(p.all, c)
		p.ending.Go(c.close) // may wait for a renewal of leases that is on its way
	}
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	addresses := p.order()
	c := newClient(p.cfg)
	p.all[c] = struct{}{}
	p.mu.Unlock()

	err := c.run(ctx, func() error { return c.connect(addresses) })
	if err != nil {
		p.put(c, false)
		return c, err
	}
	return c, nil
}

// order returns the addresses, the NameNode that answered last first: a standby
// costs a call.
func (p *pool) order() []string {
	addresses := slices.Clone(p.cfg.addresses)
	if i := slices.Index(addresses, p.first); i > 0 {
		addresses[0], addresses[i] = addresses[i], addresses[0]
	}
	return addresses
}

// drop takes an idle client out; the lock is held.
func (p *pool) drop(c *client) {
	if i := slices.Index(p.idle, c); i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
	if t := p.timers[c]; t != nil {
		t.Stop()
		delete(p.timers, c)
	}
}

// put gives a client back. answered says that its NameNode is the active one.
func (p *pool) put(c *client, answered bool) {
	c.closeData()
	p.mu.Lock()
	defer p.mu.Unlock()
	if host := c.active.Load(); answered && host != nil {
		p.first = *host
	}
	if !p.closed && c.usable() && c.lib != nil && len(p.idle) < p.cfg.poolSize {
		p.idle = append(p.idle, c)
		p.timers[c] = time.AfterFunc(idleTime, func() { p.expire(c) })
		return
	}
	delete(p.all, c)
	p.ending.Go(c.close)
}

func (p *pool) expire(c *client) {
	p.mu.Lock()
	mine := slices.Contains(p.idle, c)
	if mine {
		p.drop(c)
		delete(p.all, c)
	}
	p.mu.Unlock()
	if mine {
		c.close()
	}
}

// flush gives up all connections that are not in use: one of them just turned out
// to be dead, and the others lead to the same NameNode.
func (p *pool) flush() {
	p.mu.Lock()
	idle := slices.Clone(p.idle)
	for _, c := range idle {
		p.drop(c)
		delete(p.all, c)
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
}

// close gives up all connections, also those in use.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	all := p.all
	p.all = map[*client]struct{}{}
	for c := range all {
		p.drop(c)
	}
	p.mu.Unlock()
	for c := range all {
		c.close()
	}
	p.ending.Wait()
}
