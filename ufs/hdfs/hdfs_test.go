package hdfs_test

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	lib "github.com/colinmarc/hdfs/v2"
	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var counter atomic.Int64

func env() ufs.Environment { return ufs.Environment{AllowedEndpoints: []string{"127.0.0.0/8"}} }

func open(t testing.TB, addr, path string, more map[string]string) ufs.FS {
	t.Helper()
	u := ufs.URI{Scheme: "hdfs", Host: addr, Path: path}
	options := map[string]string{"user": "root", "request_timeout": "20s"}
	for k, v := range more {
		options[k] = v
	}
	fs, err := hdfs.NewOpener(hdfs.Options{}).Open(ufs.Spec{URI: u.String(), Options: options}, env())
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestConforms(t *testing.T) {
	addr := os.Getenv("H")
	bare, err := lib.NewClient(lib.ClientOptions{Addresses: []string{addr}, User: "root"})
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	var mu sync.Mutex
	roots := map[ufs.FS]string{}
	put := func(p string, data []byte) error {
		_ = bare.MkdirAll(p[:bytes.LastIndexByte([]byte(p), '/')], 0o755)
		_ = bare.Remove(p)
		w, err := bare.CreateFile(p, 1, 1<<20, 0o644)
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		for {
			err = w.Close()
			if !lib.IsErrReplicating(err) {
				return err
			}
		}
	}
	ufstest.Run(t, ufstest.Harness{
		New: func(t *testing.T) ufs.FS {
			root := fmt.Sprintf("/conf x%%/%d-%d", os.Getpid(), counter.Add(1))
			if err := bare.MkdirAll(root, 0o755); err != nil {
				t.Fatal(err)
			}
			fs := open(t, addr, root, map[string]string{"block_size": "1MiB"})
			mu.Lock()
			defer mu.Unlock()
			roots[fs] = root
			return fs
		},
		Again: func(t *testing.T, fs ufs.FS) ufs.FS { return open(t, addr, roots[fs], nil) },
		Outside: func(_ *testing.T, fs ufs.FS) ufstest.Outside {
			root := roots[fs]
			return ufstest.Outside{
				Put:    func(key string, data []byte) error { return put(root+"/"+key, data) },
				Remove: func(key string) error { return bare.Remove(root + "/" + key) },
			}
		},
		Denied: func(t *testing.T) ufs.FS {
			if err := bare.MkdirAll("/denied", 0o700); err != nil {
				t.Fatal(err)
			}
			return open(t, addr, "/denied", map[string]string{"user": "alice"})
		},
		Down: func(t *testing.T) ufs.FS { return open(t, "127.0.0.1:1", "/down", nil) },
		Large: 6<<20 + 12345,
	})
}
