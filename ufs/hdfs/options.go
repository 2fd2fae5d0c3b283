package hdfs

import (
	"errors"
	"time"

	lib "github.com/colinmarc/hdfs/v2"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/ufs"
)

const (
	scheme = "hdfs"
	kind   = "hdfs"
)

// Names of the options of an HDFS mount.
const (
	optUser           = "user"
	optHadoopConf     = "hadoop_conf"
	optPoolSize       = "pool_size"
	optReplication    = "replication"
	optBlockSize      = "block_size"
	optHostname       = "use_datanode_hostname"
	optRequestTimeout = "request_timeout"
	optPrincipal      = "kerberos_principal"
	optKeytab         = "kerberos_keytab"
	optRealm          = "kerberos_realm"
	optSPN            = "kerberos_spn"
	optKrb5Conf       = "krb5_conf"
	optProtection     = "data_transfer_protection"
)

const (
	// chunk is what HDFS computes a checksum over; blocks are made of whole ones.
	chunk           = 512
	defaultKrb5Conf = "/etc/krb5.conf"
	// maxOpLifetime: the NameNode skips the calls of a connection that was
	// closed, so that only one that it is just doing may still take effect.
	maxOpLifetime = time.Minute
)

func table() ufs.OptionTable {
	return append(ufs.CommonOptions(maxOpLifetime), ufs.OptionTable{
		{Name: optUser, Help: "user that HDFS sees, where it does not ask for proof; default HADOOP_USER_NAME, else the one that the server runs as"},
		{Name: optHadoopConf, Help: "directory with core-site.xml and hdfs-site.xml: addresses of a nameservice and settings that options do not give"},
		{Name: optPoolSize, Type: ufs.OptionInt, Default: "16", Min: 1, Max: 1024, Help: "calls to the NameNode at a time, and connections that are kept for the next ones"},
		{Name: optReplication, Type: ufs.OptionInt, Min: 1, Max: 512, Help: "copies of the blocks of new files; default that of the NameNode"},
		{Name: optBlockSize, Type: ufs.OptionSize, Min: chunk, Max: 1 << 40, Help: "block size of new files, a multiple of 512; default that of the NameNode"},
		{Name: optHostname, Type: ufs.OptionBool, Help: "reach DataNodes by their names rather than addresses; default from hadoop_conf, else false"},
		{Name: optRequestTimeout, Type: ufs.OptionDuration, Default: "30s", Min: int64(10 * time.Millisecond), Max: int64(10 * time.Minute), Help: "how long a NameNode or DataNode may be silent"},
		{Name: optPrincipal, Help: "Kerberos principal, name or name@REALM; turns Kerberos on"},
		{Name: optKeytab, Type: ufs.OptionSecret, Help: "keytab of the principal, as file:/path"},
		{Name: optRealm, Help: "realm of the principal where it does not name one"},
		{Name: optSPN, Help: "service principal of the NameNode, such as nn/_HOST; default from hadoop_conf, else nn/_HOST"},
		{Name: optKrb5Conf, Help: "Kerberos configuration; default " + defaultKrb5Conf},
		{Name: optProtection, Type: ufs.OptionChoice, Choices: []string{lib.DataTransferProtectionAuthentication, lib.DataTransferProtectionIntegrity, lib.DataTransferProtectionPrivacy}, Help: "least protection of the data on its way; default from hadoop_conf, else what the DataNodes ask for"},
	}...)
}

// config is what an FS works by. It does not change.
type config struct {
	lib            lib.ClientOptions // without addresses and dialers
	addresses      []string          // of the NameNodes, host:port
	authority      string            // of the name space, as the URI names it
	user           string
	root           string // path of the root of the mount, "" for that of HDFS
	policy         ufs.EndpointPolicy
	clock          clock.Clock
	poolSize       int
	replication    int   // 0: the NameNode's default
	blockSize      int64 // 0: the NameNode's default
	requestTimeout time.Duration
	maxOpLifetime  time.Duration
}

// parsed is a Spec after all checks without I/O.
type parsed struct {
	canonical ufs.Canonical
	authority authority
	root      string
	values    ufs.Values
}

func parse(spec ufs.Spec) (parsed, error) {
	const op = "parse hdfs mount"
	uri, err := ufs.ParseURI(spec.URI)
	if err != nil {
		return parsed{}, err
	}
	if uri.Scheme != scheme {
		return parsed{}, freshet.Errorf(freshet.KindInvalid, op, "", "scheme %q is not %q", uri.Scheme, scheme)
	}
	a, err := parseAuthority(uri.Host)
	if err != nil {
		return parsed{}, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: err}
	}
	if err := checkPath(op, uri.Path[min(1, len(uri.Path)):]); err != nil {
		return parsed{}, err
	}
	v, err := table().Check(scheme, spec.Options)
	if err != nil {
		return parsed{}, err
	}
	if err := checkTogether(v); err != nil {
		return parsed{}, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: err}
	}
	p := parsed{authority: a, root: uri.Path, values: v}
	p.canonical, err = v.OverrideDomain(ufs.Canonical{Scheme: scheme, Authority: scheme + "://" + a.String(), DomainKey: domainKey(uri.Path)})
	return p, err
}

func domainKey(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

// checkTogether looks at options that need each other.
func checkTogether(v ufs.Values) error {
	kerberos := v.Text(optPrincipal) != ""
	switch {
	case kerberos != (v.Text(optKeytab) != ""):
		return errors.New("options 'kerberos_principal' and 'kerberos_keytab' go together")
	case !kerberos && (v.Text(optRealm) != "" || v.Text(optSPN) != "" || v.Text(optKrb5Conf) != ""):
		return errors.New("options 'kerberos_realm', 'kerberos_spn' and 'krb5_conf' need 'kerberos_principal'")
	case kerberos && v.Text(optUser) != "":
		return errors.New("option 'user' has no meaning with Kerberos: the principal is the user")
	case v.Int(optBlockSize)%chunk != 0:
		return errors.New("option 'block_size': a block is a multiple of 512 bytes")
	}
	if kerberos {
		if ref, err := ufs.ParseSecretRef(v.Text(optKeytab)); err != nil || ref.Source != ufs.SecretFile {
			return errors.New("option 'kerberos_keytab': a keytab is a file; write file:/path")
		}
		if _, _, err := principal(v.Text(optPrincipal), v.Text(optRealm)); err != nil {
			return err
		}
	}
	return nil
}
