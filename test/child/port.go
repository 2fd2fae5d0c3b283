package child

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
)

// Ports for servers lie below those that the kernel gives to outgoing connections,
// so that nothing takes the port of a server while it restarts, and above those of
// whole clusters (see cmd/freshet/fleet), which pick theirs well before they use them.
// Below those are the ports of the tests of the bus (see crosscluster and rpc/busrpc).
const (
	lowPort  = 22000
	highPort = 32767
)

// FreePort returns a port of 127.0.0.1 that nothing listens on.
func FreePort() (int, error) {
	const tries = 100
	for range tries {
		port := lowPort + rand.IntN(highPort-lowPort)
		ln, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("free port: %w", err)
		}
		return port, ln.Close()
	}
	return 0, fmt.Errorf("no free port in %d tries between %d and %d", tries, lowPort, highPort)
}

// FreePorts returns n different ports of 127.0.0.1 that nothing listens on.
func FreePorts(n int) ([]int, error) {
	seen := map[int]bool{}
	var ports []int
	for len(ports) < n {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		if !seen[port] {
			seen[port] = true
			ports = append(ports, port)
		}
	}
	return ports, nil
}

// HTTPClient returns a client for servers on this machine, which goes through no proxy.
// The caller closes its idle connections.
func HTTPClient() *http.Client { return &http.Client{Transport: &http.Transport{Proxy: nil}} }
