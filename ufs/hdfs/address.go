package hdfs

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

const (
	defaultPort  = 8020
	maxNameNodes = 16
)

// authority is the part of a URI that names the NameNodes.
type authority struct {
	addresses []string // host:port in the order given; the NameNodes of one name space
	name      string   // instead: a host without a port, or a nameservice
}

// parseAuthority reads host:port[,host:port…], or a single name without a port.
func parseAuthority(s string) (authority, error) {
	switch {
	case s == "":
		return authority{}, fmt.Errorf("name the NameNode: hdfs://host:8020/path, or a nameservice with the option hadoop_conf")
	case strings.ContainsAny(s, "@ \t"):
		return authority{}, fmt.Errorf("%q is not host:port; the user is given by the option user", s)
	}
	parts := strings.Split(strings.ToLower(s), ",")
	if len(parts) == 1 && !strings.ContainsAny(s, ":[]") {
		if !isHost(parts[0]) {
			return authority{}, fmt.Errorf("%q is not the name of a host or a nameservice", s)
		}
		return authority{name: s}, nil
	}
	if len(parts) > maxNameNodes {
		return authority{}, fmt.Errorf("more than %d NameNodes", maxNameNodes)
	}
	var a authority
	for _, part := range parts {
		address, err := parseAddress(part)
		if err != nil {
			return authority{}, err
		}
		if slices.Contains(a.addresses, address) {
			return authority{}, fmt.Errorf("%s is named twice", address)
		}
		a.addresses = append(a.addresses, address)
	}
	return a, nil
}

// parseAddress reads host:port and returns it in its one form.
func parseAddress(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port, such as namenode:%d", s, defaultPort)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || port[0] == '+' {
		return "", fmt.Errorf("%q has no port between 1 and 65535", s)
	}
	if strings.Contains(host, ":") { // IPv6
		if ip := net.ParseIP(host); ip == nil {
			return "", fmt.Errorf("%q is not an IPv6 address", host)
		}
	} else if !isHost(host) {
		return "", fmt.Errorf("%q is not the name of a host", host)
	}
	return net.JoinHostPort(strings.ToLower(host), strconv.FormatUint(n, 10)), nil
}

// isHost accepts what host names and the names of nameservices are made of.
func isHost(s string) bool {
	return s != "" && len(s) <= 253 && s[0] != '-' && s[0] != '.' && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}

// String returns the form that identifies the name space: the same NameNodes in
// another order are the same.
func (a authority) String() string {
	if a.name != "" {
		return a.name
	}
	return strings.Join(slices.Sorted(slices.Values(a.addresses)), ",")
}

// checkAddress refuses an address that no NameNode has, without any I/O.
func checkAddress(policy ufs.EndpointPolicy, address string) error {
	return policy.CheckURL("http://" + address)
}

// checkPath refuses keys that HDFS can't hold, or reads as something else.
func checkPath(op, key string) error {
	if !utf8.ValidString(key) {
		return ufs.Errorf(freshet.KindInvalid, op, "", "the key is not valid UTF-8, which HDFS can't store")
	}
	if strings.Contains(key, ":") {
		return ufs.Errorf(freshet.KindInvalid, op, key, "HDFS takes no ':' in names")
	}
	if key == ".reserved" || strings.HasPrefix(key, ".reserved/") {
		return ufs.Errorf(freshet.KindInvalid, op, key, "HDFS keeps /.reserved for itself")
	}
	return nil
}
