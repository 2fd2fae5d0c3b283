package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// profiled takes a CPU profile of the first coordinator until the function that
// it returns is called, if profiles were asked for.
func (b *bench) profiled(others pids) func() {
	if b.profiles == "" || len(others) < 2 {
		return func() {}
	}
	ctx, stop := context.WithCancel(context.Background())
	name := filepath.Join(b.profiles, fmt.Sprintf("%02d.prof", len(b.rows)))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := profile(ctx, b.profileAt, b.length, name); err != nil {
			fmt.Fprintln(os.Stderr, "bench: no profile:", err)
		}
	})
	return func() {
		wg.Wait() // it ends by itself
		stop()
	}
}

func profile(ctx context.Context, addr string, length time.Duration, name string) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, max(1, int(length.Seconds())))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = r.Body.Close() }() // read to its end
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %w", r.Status, err)
	}
	return os.WriteFile(name, b, 0o600)
}
