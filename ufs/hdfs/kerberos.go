package hdfs

import (
	"errors"
	"fmt"
	"strings"

	krb "github.com/jcmturner/gokrb5/v8/client"
	krbconfig "github.com/jcmturner/gokrb5/v8/config"
	"github.com/jcmturner/gokrb5/v8/keytab"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// principal takes name@REALM apart; realm is for one without.
func principal(text, realm string) (name, in string, err error) {
	name, in, named := strings.Cut(text, "@")
	switch {
	case name == "" || named && in == "":
		return "", "", fmt.Errorf("option 'kerberos_principal': %q is not name@REALM", text)
	case named && realm != "" && realm != in:
		return "", "", errors.New("options 'kerberos_principal' and 'kerberos_realm' name two realms")
	case !named:
		in = realm
	}
	return name, in, nil
}

// login returns a client of Kerberos with the keytab of the options. It reads
// files; the first connection to a NameNode gets the ticket.
func login(v ufs.Values, env ufs.Environment) (*krb.Client, error) {
	const op = "open hdfs mount"
	invalid := func(err error) error { return &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: err} }
	name, realm, err := principal(v.Text(optPrincipal), v.Text(optRealm))
	if err != nil {
		return nil, invalid(err)
	}
	ref, err := ufs.ParseSecretRef(v.Text(optKeytab))
	if err != nil {
		return nil, invalid(err)
	}
	secret, err := env.SecretData(ref)
	if err != nil {
		return nil, err
	}
	keys := keytab.New()
	if err := keys.Unmarshal([]byte(secret.Reveal())); err != nil {
		return nil, invalid(errors.New("option 'kerberos_keytab': the file is not a keytab"))
	}
	file := v.Text(optKrb5Conf)
	if file == "" {
		file = defaultKrb5Conf
	}
	cfg, err := krbconfig.Load(file)
	if err != nil {
		return nil, invalid(fmt.Errorf("option 'krb5_conf': %w", err))
	}
	if realm == "" {
		realm = cfg.LibDefaults.DefaultRealm
	}
	if realm == "" {
		return nil, invalid(fmt.Errorf("no realm: set option kerberos_realm, or default_realm in %s", file))
	}
	return krb.NewWithKeytab(name, realm, keys, cfg, krb.DisablePAFXFAST(true)), nil
}
