package ufs

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/freshet-io/freshet"
)

// EndpointPolicy decides which addresses a storage's endpoint may have, so that
// whoever may add a mount can't make Freshet speak to the metadata service of the
// machine, or to services that listen on its loopback. It looks at the address
// that is really dialled: a DNS name proves nothing. It is immutable.
type EndpointPolicy struct {
	hosts []string       // host:port
	nets  []netip.Prefix // with any port
}

// EndpointPolicy returns the policy of e. An entry of AllowedEndpoints that is
// neither host:port nor a CIDR is KindInvalid.
func (e Environment) EndpointPolicy() (EndpointPolicy, error) {
	var p EndpointPolicy
	for _, entry := range e.AllowedEndpoints {
		if prefix, err := netip.ParsePrefix(entry); err == nil {
			p.nets = append(p.nets, prefix.Masked())
			continue
		}
		host, port, err := net.SplitHostPort(entry)
		if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || host == "" {
			return p, freshet.Errorf(freshet.KindInvalid, "read allowed_endpoints", "", "%q is neither host:port nor a CIDR such as 127.0.0.0/8", entry)
		}
		p.hosts = append(p.hosts, net.JoinHostPort(strings.ToLower(host), port))
	}
	return p, nil
}

// CheckURL checks the URL of an endpoint without any I/O: http or https, no
// credentials, no query, and no address in it that may not be dialled.
func (p EndpointPolicy) CheckURL(raw string) error {
	const op = "check endpoint"
	u, err := url.Parse(raw)
	switch {
	case strings.Contains(raw, "@"):
		return freshet.Errorf(freshet.KindInvalid, op, "", "credentials in the endpoint; use options credentials=env:… or credentials=file:…")
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		return freshet.Errorf(freshet.KindInvalid, op, "", "%q is not an endpoint such as https://s3.example.com:9000", limit(raw))
	case u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return freshet.Errorf(freshet.KindInvalid, op, "", "endpoint %q has more than a scheme, host and port", limit(raw))
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if p.hostAllowed(host, port) {
		return nil
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return p.CheckAddr(addr)
	}
	if addr, ok := looseIPv4(host); ok {
		if err := p.CheckAddr(addr); err != nil {
			return err
		}
		return freshet.Errorf(freshet.KindInvalid, op, "", "write the address %q as %s", host, addr)
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return p.CheckAddr(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	return nil
}

func (p EndpointPolicy) hostAllowed(host, port string) bool {
	return slices.Contains(p.hosts, net.JoinHostPort(strings.ToLower(host), port))
}

// CheckAddr refuses (KindPermission) an address that no storage has unless it is
// allowed: loopback, link-local, metadata services, multicast, unspecified and
// reserved ones, also where they hide in an IPv6 form.
func (p EndpointPolicy) CheckAddr(addr netip.Addr) error {
	for _, a := range embedded(addr.WithZone("")) {
		why := addrClass(a)
		if why == "" || slices.ContainsFunc(p.nets, func(n netip.Prefix) bool { return n.Contains(a) }) {
			continue
		}
		return freshet.Errorf(freshet.KindPermission, "check endpoint", "", "%s endpoint not allowed: %s; list it in ufs.allowed_endpoints if it is meant", why, addr)
	}
	return nil
}

// embedded returns addr and the IPv4 addresses inside of it.
func embedded(addr netip.Addr) []netip.Addr {
	if addr = addr.Unmap(); addr.Is4() {
		return []netip.Addr{addr}
	}
	b := addr.As16()
	all := []netip.Addr{addr}
	switch {
	case netip.MustParsePrefix("::/96").Contains(addr) && addr != netip.IPv6Loopback() && addr != netip.IPv6Unspecified(),
		netip.MustParsePrefix("64:ff9b::/96").Contains(addr):
		all = append(all, netip.AddrFrom4([4]byte(b[12:])))
	case netip.MustParsePrefix("2002::/16").Contains(addr):
		all = append(all, netip.AddrFrom4([4]byte(b[2:6])))
	}
	return all
}

// addrClass names what is wrong with a, "" if nothing.
func addrClass(a netip.Addr) string {
	switch {
	case a.IsLoopback():
		return "loopback"
	case a.IsLinkLocalUnicast():
		return "link-local"
	case a == netip.AddrFrom4([4]byte{100, 100, 100, 200}), a == netip.AddrFrom4([4]byte{192, 0, 0, 192}),
		a == netip.MustParseAddr("fd00:ec2::254"), a == netip.MustParseAddr("fd20:ce::254"):
		return "metadata service"
	case a.IsUnspecified(), netip.MustParsePrefix("0.0.0.0/8").Contains(a):
		return "unspecified"
	case a.IsMulticast():
		return "multicast"
	case netip.MustParsePrefix("240.0.0.0/4").Contains(a):
		return "reserved"
	}
	return ""
}

// looseIPv4 reads the forms that old resolvers accept: 2852039166, 0xa9fea9fe,
// 0251.0376.169.254, 169.254.43518.
func looseIPv4(host string) (netip.Addr, bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		base := 10
		switch {
		case strings.HasPrefix(part, "0x"):
			part, base = part[2:], 16
		case len(part) > 1 && part[0] == '0':
			base = 8
		}
		n, err := strconv.ParseUint(part, base, 32)
		if err != nil {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			if n > 255 {
				return netip.Addr{}, false
			}
			value |= n << (24 - 8*i)
			continue
		}
		if n >= 1<<(32-8*i) {
			return netip.Addr{}, false
		}
		value |= n
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

// DialContext dials address, host:port, if the policy allows the address that
// its name resolves to. It fits http.Transport.
func (p EndpointPolicy) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	if host, port, err := net.SplitHostPort(address); err != nil || !p.hostAllowed(host, port) {
		d.ControlContext = p.control
	}
	return d.DialContext(ctx, network, address)
}

// control sees the resolved address, before the connection is made.
func (p EndpointPolicy) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("check endpoint: %w", err)
	}
	if p.hostAllowed(ap.Addr().Unmap().String(), strconv.Itoa(int(ap.Port()))) {
		return nil
	}
	return p.CheckAddr(ap.Addr())
}

// Transport returns a new transport that dials by the policy and asks no proxy,
// which would dial for it. Its owner closes its idle connections.
func (p EndpointPolicy) Transport() *http.Transport {
	return &http.Transport{
		DialContext:           p.DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConns:          256,
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// RefuseRedirect is the CheckRedirect of a storage's http.Client: a storage that
// sends its caller elsewhere is not believed.
func RefuseRedirect(req *http.Request, _ []*http.Request) error {
	return freshet.Errorf(freshet.KindPermission, "follow redirect", "", "redirect refused: the endpoint sends to %s://%s; give that endpoint or region in the options if it is right", req.URL.Scheme, req.URL.Host)
}
