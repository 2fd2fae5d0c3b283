// Package auth owns who may do what: it finds out in whose name a call is made, in
// which groups that user is, and whether the rights of every component of the path
// allow it. It puts itself around a coordinator and lets through what is allowed.
// It never changes anything itself, and does not prove that a caller is who it says.
package auth

import (
	"errors"
	"os/user"
	"slices"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
)

// Caller is in whose name a call is made.
type Caller struct {
	Name   string
	Groups []string
	// Super passes all checks.
	Super bool
}

// in reports whether the caller is in a group.
func (c *Caller) in(group string) bool { return group != "" && slices.Contains(c.Groups, group) }

// Lookup asks the machine for a user by name or number. It returns the user's name
// and groups; a user that it does not know has the name that was given, and none.
type Lookup func(name string) (canonical string, groups []string, err error)

// UsersOptions guide Users; Superuser is required.
type UsersOptions struct {
	Superuser  string
	Supergroup string // "" is none
	// Groups are those of users that are not looked up.
	Groups map[string][]string
	Lookup Lookup      // nil asks the machine
	Clock  clock.Clock // nil is the machine's
}

// Users knows the groups of users. It is safe for concurrent use.
type Users struct {
	opts UsersOptions

	mu    sync.Mutex
	known map[string]known
}

type known struct {
	caller Caller
	at     time.Duration
}

const (
	// usersLife is how late a change of a user's groups on the machine is noticed.
	usersLife = time.Minute
	maxUsers  = 10_000
)

// NewUsers returns Users.
func NewUsers(opts UsersOptions) *Users {
	if opts.Lookup == nil {
		opts.Lookup = Machine
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	return &Users{opts: opts, known: map[string]known{}}
}

// Caller returns the user of a name. KindUnavailable if its groups can't be looked
// up.
func (u *Users) Caller(name string) (Caller, error) {
	now := u.opts.Clock.Elapsed()
	u.mu.Lock()
	have, ok := u.known[name]
	u.mu.Unlock()
	if ok && now-have.at < usersLife {
		return have.caller, nil
	}
	c := Caller{Name: name}
	if groups, ok := u.opts.Groups[name]; ok {
		c.Groups = slices.Clone(groups)
	} else {
		var err error
		if c.Name, c.Groups, err = u.opts.Lookup(name); err != nil {
			return c, freshet.Errorf(freshet.KindUnavailable, "look up groups", "", "user %q: %w", name, err)
		}
	}
	c.Super = c.Name == u.opts.Superuser || c.in(u.opts.Supergroup)
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.known) >= maxUsers {
		clear(u.known)
	}
	u.known[name] = known{c, now}
	return c, nil
}

// Machine is the Lookup in the files /etc/passwd and /etc/group of this machine.
func Machine(name string) (string, []string, error) {
	u, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) {
		if u, err = user.LookupId(name); err != nil {
			return name, nil, nil //nolint:nilerr // nobody knows it by number either
		}
	}
	if err != nil {
		return name, nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return name, nil, err
	}
	groups := make([]string, 0, len(ids))
	for _, id := range ids {
		g, err := user.LookupGroupId(id)
		switch {
		case err == nil:
			groups = append(groups, g.Name)
		case errors.As(err, new(user.UnknownGroupIdError)):
			groups = append(groups, id)
		default:
			return name, nil, err
		}
	}
	return u.Username, groups, nil
}
