package fleet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Relay carries a port's traffic, TCP and UDP, and can cut or delay it: the
// network between clusters of one machine.
type Relay struct {
	target string
	tcp    net.Listener
	udp    *net.UDPConn

	mu     sync.Mutex
	cut    bool
	delay  time.Duration
	paused chan struct{} // closed when traffic may go on; nil if it flows
	conns  map[net.Conn]struct{}
	flows  map[string]*net.UDPConn
	bad    disturbance
	done   sync.WaitGroup
}

// NewRelay listens on addr and carries to target. UDP is carried too if udp.
func NewRelay(ctx context.Context, addr, target string, udp bool) (*Relay, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	r := &Relay{target: target, tcp: l, conns: map[net.Conn]struct{}{}, flows: map[string]*net.UDPConn{}}
	if udp {
		a, err := net.ResolveUDPAddr("udp", l.Addr().String())
		if err == nil {
			r.udp, err = net.ListenUDP("udp", a)
		}
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		r.done.Go(r.carryUDP)
	}
	r.done.Go(r.accept)
	return r, nil
}

// Cut stops the traffic and drops the connections; Heal lets it flow again.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	for c := range r.conns {
		_ = c.Close() // it is being cut
	}
}

// Heal lets the traffic flow again.
func (r *Relay) Heal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

// Delay holds each packet and each piece of a stream back for d, one way.
func (r *Relay) Delay(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

func (r *Relay) state() (cut bool, delay time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cut, r.delay
}

// Pause holds all traffic back without a word to either end, as a line does that
// has gone dead; Resume delivers what streams had sent and lets the rest flow.
func (r *Relay) Pause() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused == nil {
		r.paused = make(chan struct{})
	}
}

// Resume ends a Pause.
func (r *Relay) Resume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused != nil {
		close(r.paused)
		r.paused = nil
	}
}

// awaitFlow waits for the end of a pause.
func (r *Relay) awaitFlow() {
	r.mu.Lock()
	paused := r.paused
	r.mu.Unlock()
	if paused != nil {
		<-paused
	}
}

// Close ends the relay.
func (r *Relay) Close() {
	r.Cut()
	r.Resume()
	_ = r.tcp.Close() // nothing to be done about it
	r.mu.Lock()
	if r.udp != nil {
		_ = r.udp.Close() // as above
	}
	for _, c := range r.flows {
		_ = c.Close() // as above
	}
	r.mu.Unlock()
	r.done.Wait()
}

func (r *Relay) accept() {
	for {
		in, err := r.tcp.Accept()
		if err != nil {
			return
		}
		if cut, _ := r.state(); cut {
			_ = in.Close() // as a cut network would
			continue
		}
		r.done.Go(func() { r.carry(in) })
	}
}

func (r *Relay) carry(in net.Conn) {
	defer func() { _ = in.Close() }()                                         // both ends are dropped together
	out, err := (&net.Dialer{Timeout: 2 * time.Second}).Dial("tcp", r.target) //nolint:noctx // bounded by the timeout
	if err != nil {
		return
	}
	defer func() { _ = out.Close() }() // as above
	r.mu.Lock()
	if r.cut {
		r.mu.Unlock()
		return
	}
	r.conns[in], r.conns[out] = struct{}{}, struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.conns, in)
		delete(r.conns, out)
		r.mu.Unlock()
	}()
	var pumps sync.WaitGroup
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		pumps.Go(func() {
			r.pump(way[0], way[1])
			_, _ = in.Close(), out.Close() // one direction ended: so does the other
		})
	}
	pumps.Wait()
}

type piece struct {
	at   time.Time
	data []byte
}

// pump carries one direction; pieces wait for their time in a queue, so that the
// delay does not cost throughput.
func (r *Relay) pump(from io.Reader, to io.Writer) {
	queue := make(chan piece, 1024)
	var writer sync.WaitGroup
	writer.Go(func() {
		for p := range queue {
			time.Sleep(time.Until(p.at))
			r.awaitFlow()
			if _, err := to.Write(p.data); err != nil {
				for range queue { //nolint:revive // drained, so that the reader ends
				}
				return
			}
		}
	})
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			_, delay := r.state()
			queue <- piece{at: time.Now().Add(delay), data: buf[:n]}
		}
		if err != nil {
			break
		}
	}
	close(queue)
	writer.Wait()
}

// carryUDP carries datagrams one way: answers go to the address that the other
// end advertises, which is a relay too.
func (r *Relay) carryUDP() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := r.udp.ReadFromUDP(buf)
		if err != nil {
			return
		}
		cut, delay := r.state()
		if cut {
			continue
		}
		out, err := r.flow(from.String())
		if err != nil {
			continue
		}
		for _, d := range r.disturb(buf[:n]) {
			if delay+d.late == 0 {
				_, _ = out.Write(d.data) // datagrams may be lost
				continue
			}
			time.AfterFunc(delay+d.late, func() { _, _ = out.Write(d.data) })
		}
	}
}

func (r *Relay) flow(from string) (*net.UDPConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.flows[from]; ok {
		return c, nil
	}
	a, err := net.ResolveUDPAddr("udp", r.target)
	if err != nil {
		return nil, err
	}
	c, err := net.DialUDP("udp", nil, a)
	if err == nil {
		r.flows[from] = c
	}
	return c, err
}
