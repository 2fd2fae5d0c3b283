package hdfs

import (
	"log/slog"
	"os/user"
	"path/filepath"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/ufs"
)

// Options of an Opener; the zero value works.
type Options struct {
	// Log gets warnings; nil drops them.
	Log *slog.Logger
	// Clock is asked for the deadlines of connections; nil is the machine's.
	Clock clock.Clock
}

// Opener opens hdfs:// URIs. Safe for concurrent use.
type Opener struct {
	log   *slog.Logger
	clock clock.Clock
}

var _ ufs.Opener = (*Opener)(nil)

// NewOpener returns an Opener; it does nothing yet.
func NewOpener(opts Options) *Opener {
	o := &Opener{log: opts.Log, clock: opts.Clock}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if o.clock == nil {
		o.clock = clock.Real{}
	}
	return o
}

// Schemes returns "hdfs".
func (o *Opener) Schemes() []string { return []string{scheme} }

// OptionTable returns all options that a mount of hdfs:// may have.
func (o *Opener) OptionTable() ufs.OptionTable { return table() }

// Parse checks spec without any I/O. The authority is that of the URI, with several
// NameNodes in order: a nameservice and the addresses behind it are two domains,
// unless the option domain makes them one.
func (o *Opener) Parse(spec ufs.Spec) (ufs.Canonical, error) {
	p, err := parse(spec)
	return p.canonical, err
}

// Open returns the FS of spec. It reads configuration files and the keytab but
// contacts neither HDFS nor Kerberos.
func (o *Opener) Open(spec ufs.Spec, env ufs.Environment) (ufs.FS, error) {
	const op = "open hdfs mount"
	p, err := parse(spec)
	if err != nil {
		return nil, err
	}
	policy, err := env.EndpointPolicy()
	if err != nil {
		return nil, err
	}
	v := p.values
	cfg := &config{
		authority: scheme + "://" + p.authority.String(), root: p.root, policy: policy, clock: o.clock, poolSize: int(v.Int(optPoolSize)), replication: int(v.Int(optReplication)),
		blockSize: v.Int(optBlockSize), requestTimeout: v.Duration(optRequestTimeout), maxOpLifetime: v.Duration(ufs.OptionMaxOpLifetime),
	}
	conf, err := loadConf(v.Text(optHadoopConf))
	if err == nil {
		cfg.addresses, err = conf.addresses(p.authority)
	}
	if err == nil {
		cfg.lib, err = conf.clientOptions(v)
	}
	if err != nil {
		return nil, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: err}
	}
	for _, address := range cfg.addresses {
		if err := checkAddress(policy, address); err != nil {
			return nil, err
		}
	}
	if v.Text(optPrincipal) != "" {
		if cfg.lib.KerberosClient, err = login(v, env); err != nil {
			return nil, err
		}
		cfg.user = cfg.lib.KerberosClient.Credentials.UserName()
	} else {
		if cfg.user, err = actAs(v.Text(optUser), env); err != nil {
			return nil, err
		}
		cfg.lib.User = cfg.user
	}
	return newFS(cfg, o.log), nil
}

// actAs returns the user that HDFS sees when it asks for no proof.
func actAs(option string, env ufs.Environment) (string, error) {
	if option != "" {
		return option, nil
	}
	if env.Getenv != nil {
		if name := env.Getenv("HADOOP_USER_NAME"); name != "" {
			return name, nil
		}
	}
	u, err := user.Current()
	if err != nil || u.Username == "" {
		return "", freshet.Errorf(freshet.KindInvalid, "open hdfs mount", "", "the user that the server runs as has no name; set the option user")
	}
	return filepath.Base(u.Username), nil
}
