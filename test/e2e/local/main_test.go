// Package local_test tests reads over the Unix socket of a cache node with real
// processes: a client in a container that shares only the socket, users without
// permission, nodes that are killed, and versions that change.
package local_test

import (
	"testing"

	"github.com/freshet-io/freshet/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }
