package config

import (
	"maps"
	"slices"
)

// The modes of Auth.
const (
	AuthNone   = "none"   // whoever reaches a port may do everything
	AuthSimple = "simple" // callers say who they are, and are believed
)

// Auth configures who callers are and whether permissions are checked.
type Auth struct {
	Mode string `yaml:"mode"`
	// Superuser passes all checks, as do the members of Supergroup; "" is the user
	// that the coordinator runs as, and no group.
	Superuser  string `yaml:"superuser"`
	Supergroup string `yaml:"supergroup"`
	// Groups are those of users that are not looked up on the machine.
	Groups map[string][]string `yaml:"groups"`
}

func (a *Auth) given() bool {
	return a.Mode != "" || a.Superuser != "" || a.Supergroup != "" || len(a.Groups) > 0
}

func (f *File) checkAuth(p *problems) {
	a := &f.Auth
	switch a.Mode {
	case "":
		if a.given() {
			p.add("auth.mode", "is required with other settings of auth: %q or %q", AuthNone, AuthSimple)
		}
		a.Mode = AuthNone
	case AuthSimple:
	case AuthNone:
		if a.Superuser != "" || a.Supergroup != "" || len(a.Groups) > 0 {
			p.add("auth", "superuser, supergroup and groups have no effect with mode %q: set mode %q, or remove them", AuthNone, AuthSimple)
		}
	default:
		p.add("auth.mode", "%q is not built; there are %q (whoever reaches a port may do everything) and %q (permissions are checked for the user that a caller says it is)", a.Mode, AuthNone, AuthSimple)
	}
	for _, user := range slices.Sorted(maps.Keys(a.Groups)) {
		if user == "" || slices.Contains(a.Groups[user], "") {
			p.add("auth.groups", "names of users and groups can't be empty (user %q)", user)
		}
	}
}
