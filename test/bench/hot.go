package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
)

const (
	readSize = 64 << 20
	// readBuffer is what a client reads into, in bytes.
	readBuffer = 1 << 20
)

// reads measures hot reads over HTTP and gRPC against the bare ways of the bytes.
func (b *bench) reads(ctx context.Context) error {
	for _, tier := range []string{"disk", "memory"} {
		if err := b.read(ctx, tier); err != nil {
			return fmt.Errorf("%s tier: %w", tier, err)
		}
	}
	return nil
}

// hot is a file that a node has cached, and the bare server of the same bytes.
type hot struct {
	fleet   *fleet.Fleet
	session *fleet.Session
	bare    *bare
	url     string
	close   func() error
}

// heat writes a file, starts a region with a node of that tier and reads the file.
func (b *bench) heat(ctx context.Context, name, tier string) (*hot, error) {
	f, storage, err := b.cluster(ctx, clusterOptions{name: name + "-" + tier, clusters: 1, coordinators: 1, tier: tier})
	if err != nil {
		return nil, err
	}
	content := make([]byte, readSize)
	_, _ = rand.Read(content) // never fails
	file := filepath.Join(storage, "big")
	h := &hot{fleet: f, url: "http://" + f.Clusters[0].NodeHTTP[0] + "/v1/data/big"}
	if err = os.WriteFile(file, content, 0o600); err == nil {
		h.session, err = f.Clusters[0].Connect()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if h.bare, err = startBare(ctx, file); err != nil {
		f.Close()
		return nil, errors.Join(err, h.session.Close())
	}
	h.close = func() error {
		err := errors.Join(h.session.Close(), h.bare.conn.Close(), h.bare.stop())
		f.Close()
		return err
	}
	for range 2 { // cold, then checked once
		if err := fetch(ctx, http.DefaultClient, h.url, make([]byte, readBuffer)); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	return h, nil
}

func (b *bench) read(ctx context.Context, tier string) (err error) {
	h, err := b.heat(ctx, "read", tier)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	ways := []way{{waySendfile, "sendfile"}, {wayRead, "read+write"}}
	over := way{wayRead, "read into a pooled buffer"}
	if tier == "memory" {
		ways, over = []way{{wayMemory, "write from memory"}}, way{wayMemory, "from memory"}
	}
	best, rate := ways[0], 0.0
	for _, w := range ways {
		perCPU, err := b.bareTCP(ctx, h.bare, w)
		if err != nil {
			return err
		}
		if perCPU > rate {
			best, rate = w, perCPU
		}
	}
	buf := make([]byte, readBuffer)
	own := &http.Client{Transport: &http.Transport{ReadBufferSize: 4 << 10}}
	defer own.CloseIdleConnections()
	our := &side{others: servers(h.fleet), at: h.fleet.Clusters[0].NodeHTTP[0], do: func(ctx context.Context) error { return fetch(ctx, own, h.url, buf) }}
	their, end, err := h.bare.tcpSide(ctx, best.way)
	if err != nil {
		return err
	}
	defer end()
	if err := b.contest(ctx, "http-"+tier, b.turnLength(), our, their); err != nil {
		return err
	}
	b.addHot("hot read of 64 MiB over HTTP, "+tier+" tier", "TCP, "+best.name, our, their)
	our = &side{others: servers(h.fleet), at: h.fleet.Clusters[0].NodeHTTP[0], do: func(ctx context.Context) error { return h.whole(ctx) }}
	their = &side{others: pids{h.bare.pid}, do: func(ctx context.Context) error { return h.bare.overGRPC(ctx, over.way, readSize) }}
	if err := b.contest(ctx, "grpc-"+tier, b.turnLength(), our, their); err != nil {
		return err
	}
	b.addHot("hot read of 64 MiB over gRPC, "+tier+" tier", "bare bytes by gRPC, "+over.name, our, their)
	return nil
}

// way is one of those in which bytes get to the wire.
type way struct {
	way  byte
	name string
}

// bareTCP measures what one way costs.
func (b *bench) bareTCP(ctx context.Context, from *bare, w way) (perCPU float64, err error) {
	s, end, err := from.tcpSide(ctx, w.way)
	if err != nil {
		return 0, err
	}
	defer end()
	for range 2 {
		if err := s.turn(ctx, b.turnLength()); err != nil {
			return 0, err
		}
	}
	perCPU = readSize / 1e9 / s.cpu[1].Seconds()
	b.under("limit in the same run", "per CPU-second, client and servers")
	b.add("bare bytes over one TCP connection, "+w.name, gigabytes(s.wall[1]), gigabytes(s.cpu[1]), "")
	return perCPU, nil
}

// tcpSide reads over one connection.
func (b *bare) tcpSide(ctx context.Context, way byte) (*side, func(), error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", b.tcp)
	if err != nil {
		return nil, nil, err
	}
	buf := make([]byte, readBuffer)
	s := &side{others: pids{b.pid}, do: func(context.Context) error { return overTCP(c, buf, way, readSize) }}
	return s, func() { _ = c.Close() }, nil
}

// whole reads the file as a client of the region.
func (h *hot) whole(ctx context.Context) error {
	r, err := h.session.Files.Open(ctx, "/big", client.Whole())
	if err != nil {
		return err
	}
	_, err = r.WriteTo(io.Discard)
	return errors.Join(err, r.Close())
}

func gigabytes(d time.Duration) string { return fmt.Sprintf("%.2f GB/s", readSize/1e9/d.Seconds()) }

// addHot adds the row of a contest over a hot file.
func (b *bench) addHot(what, limit string, our, their *side) {
	b.under("limit in the same run", "per CPU-second, client and servers")
	cpu, low, high := ratios(our.cpu, their.cpu)
	b.add(what, gigabytes(middle(our.wall)), gigabytes(middle(our.cpu)),
		fmt.Sprintf("%s %s: **%.2f** of it (%.2f–%.2f)", limit, gigabytes(middle(their.cpu)), cpu, low, high))
}

// fetch reads the file by HTTP.
func fetch(ctx context.Context, by *http.Client, url string, buf []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r, err := by.Do(req)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r.Body}, buf)
	_ = r.Body.Close() // read to its end
	if err == nil && (r.StatusCode != http.StatusOK || n != readSize) {
		err = fmt.Errorf("%s: %s, %d bytes", url, r.Status, n)
	}
	return err
}
