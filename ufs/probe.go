package ufs

import (
	"context"
	"errors"

	"github.com/freshet-io/freshet"
)

// Probe asks a storage for its root and for the first entry in it, to tell
// whoever adds a mount what is wrong before anybody relies on it. It changes
// nothing. The error's Kind is the storage's, its text says what to do.
func Probe(ctx context.Context, fs FS) error {
	st, err := fs.Stat(ctx, "")
	if err == nil && !st.IsDir() {
		return freshet.Errorf(freshet.KindConflict, "probe storage", "", "the root of the mount is not a directory; mount the directory that holds it")
	}
	if err == nil {
		for _, listErr := range fs.List(ctx, "", ListOptions{PageSize: 1}) {
			err = listErr
			break
		}
	}
	if err == nil {
		return nil
	}
	k := freshet.KindOf(err)
	if errors.Is(err, ErrNoRoot) {
		k = freshet.KindNotExist // nobody looks for a file here
	}
	return &freshet.Error{Op: "probe storage", Kind: k, Err: &probeError{hint: probeHint(k), err: err}}
}

// probeError puts the hint before the cause.
type probeError struct {
	hint string
	err  error
}

func (e *probeError) Error() string { return e.hint + " (" + e.err.Error() + ")" }

func (e *probeError) Unwrap() error { return e.err }

func probeHint(k freshet.Kind) string {
	switch k {
	case freshet.KindNotExist:
		return "the root of the mount does not exist in the storage; check the URI, or create it first"
	case freshet.KindPermission, freshet.KindUnauthenticated:
		return "the storage denies access to the root of the mount; check the credentials, or owner and mode of the directory"
	case freshet.KindUnavailable:
		return "the storage can't be reached; check endpoint, network and that it runs"
	case freshet.KindDeadline:
		return "the storage did not answer in time; check endpoint and network"
	case freshet.KindExhausted:
		return "the storage is throttling; try again later"
	default:
		return "the storage answers, but the root of the mount can't be used"
	}
}
