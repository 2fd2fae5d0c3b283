package mem_test

import (
	"errors"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func harness(mode mem.Mode) ufstest.Harness {
	stores := map[ufs.FS]*mem.Store{}
	failing := func(k freshet.Kind) func(t *testing.T) ufs.FS {
		return func(*testing.T) ufs.FS {
			return mem.New(mem.Options{Mode: mode, Hook: func(step, _ string) error {
				return freshet.Errorf(k, step, "", "by the hook")
			}}).FS("")
		}
	}
	return ufstest.Harness{
		New: func(*testing.T) ufs.FS {
			s := mem.New(mem.Options{Mode: mode})
			fs := s.FS("root/of/mount")
			stores[fs] = s
			return fs
		},
		Again: func(_ *testing.T, fs ufs.FS) ufs.FS { return stores[fs].FS("root/of/mount") },
		Outside: func(_ *testing.T, fs ufs.FS) ufstest.Outside {
			s := stores[fs]
			absent := errors.New("no such key")
			return ufstest.Outside{
				Put: func(key string, data []byte) error { s.Put("root/of/mount/"+key, data); return nil },
				Rewrite: func(key string, data []byte) error {
					if !s.Rewrite("root/of/mount/"+key, data) {
						return absent
					}
					return nil
				},
				Remove: func(key string) error {
					if !s.Remove("root/of/mount/" + key) {
						return absent
					}
					return nil
				},
			}
		},
		Denied: failing(freshet.KindPermission),
		Down:   failing(freshet.KindUnavailable),
	}
}

func TestObjectStoreConforms(t *testing.T) { ufstest.Run(t, harness(mem.Object)) }

func TestLocalConforms(t *testing.T) { ufstest.Run(t, harness(mem.Local)) }
