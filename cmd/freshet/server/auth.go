package server

import (
	"os/user"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/auth"
	"github.com/freshet-io/freshet/config"
)

// newGuard puts checks of permissions around a region.
func newGuard(cfg config.Auth, region auth.Region) (*auth.Guard, error) {
	opts := auth.UsersOptions{Superuser: cfg.Superuser, Supergroup: cfg.Supergroup, Groups: cfg.Groups}
	if opts.Superuser == "" {
		self, err := user.Current()
		if err != nil {
			return nil, freshet.Errorf(freshet.KindInvalid, "start coordinator", "", "auth.superuser: the user that this process runs as has no name; set it: %w", err)
		}
		opts.Superuser = self.Username
	}
	return auth.NewGuard(region, auth.NewUsers(opts)), nil
}
