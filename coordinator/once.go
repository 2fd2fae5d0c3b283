package coordinator

import (
	"context"

	"github.com/freshet-io/freshet"
)

// repeated reports whether the change of settings that a call names by its operation
// ID was made before. It is asked before anything that would refuse it now.
func (c *Coordinator) repeated(ctx context.Context) (bool, error) {
	op := freshet.OpOf(ctx)
	if op.IsZero() {
		return false, nil
	}
	_, done, err := c.state.OpResult(op)
	return done, err
}

// mountAgain answers a repeated change of a mount with what is there now, if
// anything is.
func (c *Coordinator) mountAgain(p freshet.Path, err error) (freshet.MountAnswer, error) {
	if err != nil {
		return freshet.MountAnswer{}, err
	}
	if m, ok := c.state.MountAt(p); ok && m.Path == p {
		return c.mountAnswer(m, nil), nil
	}
	return freshet.MountAnswer{Mount: freshet.Mount{Path: p}, Notes: []string{"this was done before; nothing is mounted there now"}}, nil
}
