package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// Limits of the embedded gateway: far above what a test opens, because a refused
// connection would look like a fault nobody injected.
const (
	maxConnections = 8192
	maxRequests    = 4096
	maxParts       = 10000
	maxPosixCalls  = 64
	maxCopyBytes   = 5 << 30 // of S3; the gateway as a library has no default
)

// versityGW prepares the gateway. Buckets live in ROOT/data, side-car metadata in
// ROOT/meta, which must be outside of the former.
func (e *Engine) versityGW() (func(context.Context) error, error) {
	data := filepath.Join(e.opt.Root, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("object directory: %w", err)
	}
	store, sidecar, err := e.metadata(data)
	if err != nil {
		return nil, err
	}
	files, err := posix.New(data, store, posix.PosixOpts{
		Concurrency: maxPosixCalls, SideCarDir: sidecar, CopyObjectThreshold: maxCopyBytes,
	})
	if err != nil {
		return nil, fmt.Errorf("versitygw over %s: %w", data, err)
	}
	be := faithful{Posix: files, root: data, meta: store, ends: &[64]sync.Mutex{}}
	cfg := &embedgw.Config{
		RootUserAccess:    e.opt.AccessKey,
		RootUserSecret:    e.opt.SecretKey,
		Region:            region,
		Ports:             []string{e.address},
		MaxConnections:    maxConnections,
		MaxRequests:       maxRequests,
		MultipartMaxParts: maxParts,
		VirtualDomain:     VirtualDomain,
		Quiet:             true,
		KeepAlive:         true,
	}
	return func(ctx context.Context) error { return embedgw.RunVersityGW(ctx, be, cfg) }, nil
}

// metadata chooses where object metadata is kept. The choice must be the same
// over restarts on one root: MetaAuto stays with side-car files once they exist.
func (e *Engine) metadata(data string) (store meta.MetadataStorer, sidecarDir string, err error) {
	sidecar := filepath.Join(e.opt.Root, "meta")
	kind := e.opt.Meta
	if kind == "" || kind == MetaAuto {
		kind = MetaXattr
		if _, err := os.Stat(sidecar); err == nil || (meta.XattrMeta{}).Test(data) != nil {
			kind = MetaSideCar
		}
	}
	switch kind {
	case MetaXattr:
		if err := (meta.XattrMeta{}).Test(data); err != nil {
			return nil, "", fmt.Errorf("no user extended attributes in %s (choose %s): %w", data, MetaSideCar, err)
		}
		return meta.XattrMeta{}, "", nil
	case MetaSideCar:
		if err := os.MkdirAll(sidecar, 0o700); err != nil {
			return nil, "", fmt.Errorf("metadata directory: %w", err)
		}
		s, err := meta.NewSideCar(sidecar)
		if err != nil {
			return nil, "", fmt.Errorf("metadata directory: %w", err)
		}
		return s, sidecar, nil
	default:
		return nil, "", fmt.Errorf("unknown metadata store %q: use %s, %s or %s", kind, MetaAuto, MetaXattr, MetaSideCar)
	}
}
