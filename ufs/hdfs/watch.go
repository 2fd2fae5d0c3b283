package hdfs

import (
	"context"
	"iter"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs/inotify"
)

// watchTimeout bounds a call for changes, however long others may take.
const watchTimeout = 20 * time.Second

var _ ufs.Watcher = (*FS)(nil)

// Place returns where the mount lies: HDFS tells of changes by paths of the whole
// name space.
func (f *FS) Place() ufs.Place {
	key := f.cfg.root
	if key == "" {
		key = "/"
	}
	return ufs.Place{Authority: f.cfg.authority, Key: key}
}

// WatchSource returns the edit log of the name space, which tells of every change.
// One poller serves all mounts that ask as the same user. It is KindUnsupported
// with Kerberos.
func (f *FS) WatchSource() (ufs.WatchSource, error) {
	if f.cfg.lib.KerberosClient != nil {
		return ufs.WatchSource{}, freshet.Errorf(freshet.KindUnsupported, "watch", "",
			"active sync of HDFS does not speak Kerberos yet; leave it off for this mount, whose sync interval then applies, or mount without kerberos_principal where the NameNodes take the option user")
	}
	return ufs.WatchSource{ID: "inotify:" + f.cfg.authority + " " + f.cfg.user, Complete: true}, nil
}

// Watch follows the edit log of the active NameNode. The user of the mount must be
// a superuser of the HDFS, else it is KindPermission.
func (f *FS) Watch(ctx context.Context, since []byte) iter.Seq2[ufs.Notice, error] {
	return func(yield func(ufs.Notice, error) bool) {
		if _, err := f.WatchSource(); err != nil {
			yield(ufs.Notice{}, err)
			return
		}
		s := inotify.New(inotify.Options{
			Addrs: f.cfg.addresses, User: f.cfg.user, Dial: f.cfg.policy.DialContext, Log: f.log, CallTimeout: min(f.cfg.requestTimeout, watchTimeout),
		})
		for n, err := range s.Watch(ctx, since) {
			n.Of = f.cfg.authority
			if !yield(n, err) {
				return
			}
		}
	}
}
