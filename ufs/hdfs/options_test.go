package hdfs_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/iana/etypeID"
	"github.com/jcmturner/gokrb5/v8/keytab"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs"
)

func TestParse(t *testing.T) {
	t.Parallel()
	type options = map[string]string
	kerberos := func(more options) options {
		o := options{"kerberos_principal": "freshet@EXAMPLE.COM", "kerberos_keytab": "file:/etc/freshet.keytab"}
		maps.Copy(o, more)
		return o
	}
	for _, tc := range []struct {
		uri     string
		options options
		want    ufs.Canonical
		text    string // of the error
	}{
		{uri: "hdfs://nn:8020/data", want: ufs.Canonical{Scheme: "hdfs", Authority: "hdfs://nn:8020", DomainKey: "/data"}},
		{uri: "HDFS://NN.Example.com:08020/data//a%20b/", want: ufs.Canonical{Scheme: "hdfs", Authority: "hdfs://nn.example.com:8020", DomainKey: "/data/a b"}},
		{uri: "hdfs://nn2:8020,nn1:8020/d", want: ufs.Canonical{Scheme: "hdfs", Authority: "hdfs://nn1:8020,nn2:8020", DomainKey: "/d"}},
		{uri: "hdfs://[2001:db8::1]:8020/d", want: ufs.Canonical{Scheme: "hdfs", Authority: "hdfs://[2001:db8::1]:8020", DomainKey: "/d"}},
		{uri: "hdfs://prod/d", want: ufs.Canonical{Scheme: "hdfs", Authority: "hdfs://prod", DomainKey: "/d"}},
		{uri: "hdfs://nn:8020", want: ufs.Canonical{Scheme: "hdfs", Authority: "hdfs://nn:8020", DomainKey: "/"}},
		{uri: "hdfs://nn:8020/d", options: options{"domain": "prod", "domain_root": "/x"}, want: ufs.Canonical{Scheme: "hdfs", Authority: "prod", DomainKey: "/x"}},
		{uri: "hdfs://nn/d", options: kerberos(nil), want: ufs.Canonical{Scheme: "hdfs", Authority: "hdfs://nn", DomainKey: "/d"}},
		{uri: "hdfs:///d", text: "name the NameNode"},
		{uri: "hdfs://alice:secret@nn:8020/d", text: "credentials in URI"},
		{uri: "hdfs://nn:/d", text: "no port between"},
		{uri: "hdfs://nn:0/d", text: "no port between"},
		{uri: "hdfs://nn:70000/d", text: "no port between"},
		{uri: "hdfs://nn:+80/d", text: "no port between"},
		{uri: "hdfs://nn1:8020,/d", text: "is not host:port"},
		{uri: "hdfs://nn1,nn2/d", text: "is not host:port"},
		{uri: "hdfs://nn:1,nn:1/d", text: "named twice"},
		{uri: "hdfs://n n:1/d", text: "is not host:port"},
		{uri: "hdfs://n_*:1/d", text: "not the name of a host"},
		{uri: "hdfs://[fe80::z]:1/d", text: "not an IPv6 address"},
		{uri: "hdfs://nn:8020/a:b", text: "no ':'"},
		{uri: "hdfs://nn:8020/.reserved/raw", text: "/.reserved"},
		{uri: "hdfs://nn:8020/a/../b", text: `".." segment`},
		{uri: "hdfs://" + strings.Repeat("nn:1,", 16) + "nn:1/d", text: "NameNodes"},
		{uri: "hdfs://nn/d", options: options{"replicaton": "3"}, text: "did you mean 'replication'?"},
		{uri: "hdfs://nn/d", options: options{"hdfs.user": "x"}, text: "did you mean 'user'?"},
		{uri: "hdfs://nn/d", options: options{"replication": "0"}, text: "allowed is 1"},
		{uri: "hdfs://nn/d", options: options{"block_size": "1000"}, text: "multiple of 512"},
		{uri: "hdfs://nn/d", options: options{"data_transfer_protection": "private"}, text: "did you mean 'privacy'?"},
		{uri: "hdfs://nn/d", options: options{"kerberos_principal": "x"}, text: "go together"},
		{uri: "hdfs://nn/d", options: options{"kerberos_keytab": "file:/x"}, text: "go together"},
		{uri: "hdfs://nn/d", options: options{"kerberos_realm": "X"}, text: "need 'kerberos_principal'"},
		{uri: "hdfs://nn/d", options: kerberos(options{"user": "x"}), text: "no meaning with Kerberos"},
		{uri: "hdfs://nn/d", options: kerberos(options{"kerberos_keytab": "env:KEYTAB"}), text: "write file:/path"},
		{uri: "hdfs://nn/d", options: kerberos(options{"kerberos_keytab": "BQIAAABT"}), text: "secrets are not given inline"},
		{uri: "hdfs://nn/d", options: kerberos(options{"kerberos_realm": "OTHER"}), text: "two realms"},
		{uri: "hdfs://nn/d", options: kerberos(options{"kerberos_principal": "@X"}), text: "not name@REALM"},
	} {
		got, err := hdfs.NewOpener(hdfs.Options{}).Parse(ufs.Spec{URI: tc.uri, Options: tc.options})
		if tc.text != "" {
			wantKind(t, err, freshet.KindInvalid, tc.text)
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%s: got %+v, %v, want %+v", tc.uri, got, err, tc.want)
		}
	}
}

// TestErrorsOfOptionsKeepSecrets: what may be a secret is not repeated.
func TestErrorsOfOptionsKeepSecrets(t *testing.T) {
	t.Parallel()
	for _, spec := range []ufs.Spec{
		{URI: "hdfs://alice:hunter2@nn:8020/d"},
		{URI: "hdfs://nn/d", Options: map[string]string{"kerberos_principal": "a@B", "kerberos_keytab": "hunter2"}},
	} {
		if _, err := hdfs.NewOpener(hdfs.Options{}).Parse(spec); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("got %v", err)
		}
	}
}

func TestEndpointPolicy(t *testing.T) {
	t.Parallel()
	opener := hdfs.NewOpener(hdfs.Options{})
	for uri, allowed := range map[string]bool{
		"hdfs://127.0.0.1:8020/d":              false,
		"hdfs://localhost:8020/d":              false,
		"hdfs://nn:8020,169.254.169.254:80/d":  false,
		"hdfs://[::1]:8020/d":                  false,
		"hdfs://[::ffff:169.254.169.254]:80/d": false,
		"hdfs://2852039166:80/d":               false,
		"hdfs://localhost/d":                   false,
		"hdfs://10.0.0.1:8020/d":               true,
	} {
		fs, err := opener.Open(ufs.Spec{URI: uri}, ufs.Environment{})
		if allowed {
			if err != nil {
				t.Errorf("%s: %v", uri, err)
				continue
			}
			if err := fs.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		wantKind(t, err, freshet.KindPermission, "ufs.allowed_endpoints")
	}
}

// TestNameThatLeadsToTheLoopback: what counts is the address that is dialled.
func TestNameThatLeadsToTheLoopback(t *testing.T) {
	nn := fakeNameNode(t, "java.io.IOException", "reached")
	_, port, _ := strings.Cut(nn.addr, ":")
	name, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	fs, err := hdfs.NewOpener(hdfs.Options{}).Open(ufs.Spec{URI: "hdfs://" + name + ":" + port + "/d", Options: map[string]string{"request_timeout": "2s"}}, ufs.Environment{})
	if err != nil {
		t.Skip("the name of this machine is no name of a host")
	}
	defer fs.Close() //nolint:errcheck // end of the test
	if _, err := fs.Stat(t.Context(), "f"); err == nil || strings.Contains(err.Error(), "reached") {
		t.Errorf("got %v", err)
	}
}

func TestHadoopConf(t *testing.T) {
	t.Parallel()
	nn := fakeNameNode(t, "org.apache.hadoop.security.AccessControlException", "you got here")
	property := func(name, value string) string {
		return "<property><name>" + name + "</name><value> " + value + "\n</value></property>"
	}
	write := func(properties ...string) string {
		dir := t.TempDir()
		text := "<configuration>" + strings.Join(properties, "") + "</configuration>"
		if err := os.WriteFile(filepath.Join(dir, "hdfs-site.xml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	ha := []string{
		property("dfs.nameservices", "prod"), property("dfs.ha.namenodes.prod", "a, b"),
		property("dfs.namenode.rpc-address.prod.a", "127.0.0.1:1"), property("dfs.namenode.rpc-address.prod.b", nn.addr),
		property("fs.defaultFS", ":no uri"),
	}
	for name, tc := range map[string]struct {
		dir, host, text string
		options         map[string]string
	}{
		"nameservice":             {dir: write(ha...), host: "prod", text: "you got here"},
		"one NameNode":            {dir: write(property("dfs.namenode.rpc-address.one", nn.addr)), host: "one", text: "you got here"},
		"address in the URI":      {dir: write(ha...), host: nn.addr, text: "you got here"},
		"address missing":         {dir: write(ha[:3]...), host: "prod", text: "no property dfs.namenode.rpc-address.prod.b"},
		"bad address":             {dir: write(property("dfs.namenode.rpc-address.one", "nowhere")), host: "one", text: "not host:port"},
		"loopback by nameservice": {dir: write(property("dfs.namenode.rpc-address.one", "169.254.169.254:80")), host: "one", text: "ufs.allowed_endpoints"},
		"asks for Kerberos":       {dir: write(property("hadoop.security.authentication", "kerberos")), host: "nn", text: "set options kerberos_principal"},
		"no files":                {dir: t.TempDir(), host: "prod", text: "neither core-site.xml nor hdfs-site.xml"},
		"no directory":            {dir: "/no/such/dir", host: "prod", text: "is not a directory"},
		"relative":                {dir: "etc/hadoop", host: "prod", text: "not an absolute path"},
		"not XML":                 {dir: write("</x>"), host: "prod", text: "hadoop_conf"},
	} {
		options := map[string]string{"hadoop_conf": tc.dir, "user": "u", "request_timeout": "5s"}
		fs, err := hdfs.NewOpener(hdfs.Options{}).Open(ufs.Spec{URI: "hdfs://" + tc.host + "/d", Options: options}, environment())
		if err == nil {
			_, err = fs.Stat(t.Context(), "f")
			if cerr := fs.Close(); cerr != nil {
				t.Error(cerr)
			}
		}
		if err == nil || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: got %v, want %q", name, err, tc.text)
		}
	}
}

// TestKeytab: files are read at Open, Kerberos is asked at the first call.
func TestKeytab(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	krb5 := put("krb5.conf", "[libdefaults]\n default_realm = EXAMPLE.COM\n dns_lookup_kdc = false\n[realms]\n EXAMPLE.COM = {\n  kdc = 127.0.0.1:1\n }\n", 0o600)
	noRealm := put("norealm.conf", "[libdefaults]\n", 0o600)
	keys := keytab.New()
	// The last byte, of the version of the key, is a line feed: no text is trimmed here.
	if err := keys.AddEntry("freshet", "EXAMPLE.COM", "no secret", time.Unix(1, 0), '\n', etypeID.AES256_CTS_HMAC_SHA1_96); err != nil {
		t.Fatal(err)
	}
	raw, err := keys.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(raw)
	for name, tc := range map[string]struct {
		keytab, krb5 string
		kind         freshet.Kind
		text         string
	}{
		"missing":     {filepath.Join(dir, "none"), krb5, freshet.KindInvalid, "secret file"},
		"open to all": {put("open", good, 0o644), krb5, freshet.KindPermission, "chmod 600"},
		"junk":        {put("junk", "\x05\x02\x00\x00\x7f\xff\x01", 0o600), krb5, freshet.KindInvalid, "not a keytab"},
		"short":       {put("short", "\x05", 0o600), krb5, freshet.KindInvalid, "not a keytab"},
		"no realm":    {put("ok", good, 0o600), noRealm, freshet.KindInvalid, "no realm"},
		"no krb5":     {put("ok2", good, 0o600), filepath.Join(dir, "none"), freshet.KindInvalid, "krb5_conf"},
		"good":        {put("ok3", good, 0o600), krb5, freshet.KindOK, ""},
	} {
		options := map[string]string{"kerberos_principal": "freshet", "kerberos_keytab": "file:" + tc.keytab, "krb5_conf": tc.krb5, "request_timeout": "1s"}
		fs, err := hdfs.NewOpener(hdfs.Options{}).Open(ufs.Spec{URI: "hdfs://127.0.0.1:1/d", Options: options}, environment())
		wantKind(t, err, tc.kind, tc.text)
		if err != nil {
			continue
		}
		if _, err := fs.Stat(t.Context(), "f"); !freshet.IsKind(err, freshet.KindUnavailable) {
			t.Errorf("%s: got %v", name, err)
		}
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFeatures: what callers rely on is constant and said once.
func TestFeatures(t *testing.T) {
	t.Parallel()
	fs := open(t, "127.0.0.1:1", "/d", map[string]string{"max_op_lifetime": "3m"})
	defer fs.Close() //nolint:errcheck // end of the test
	f := fs.Features()
	if f.Kind != "hdfs" || !f.AtomicRename || !f.RealDirectories || !f.OwnerAndMode || !f.CreateIfAbsent || f.ReplaceIf || !f.AbortEndsEffects || f.MaxOpLifetime.Minutes() != 3 {
		t.Errorf("got %+v", f)
	}
	if got := hdfs.NewOpener(hdfs.Options{}).Schemes(); !slices.Equal(got, []string{"hdfs"}) {
		t.Errorf("schemes %q", got)
	}
}

// FuzzAuthority: whatever is taken has one form, which is taken again and is the same.
func FuzzAuthority(f *testing.F) {
	for _, seed := range []string{"nn:8020", "nn1:8020,nn2:8020", "prod", "[::1]:1", "a,b", ":", "nn:08020", "[fe80::1%eth0]:1", "NN", "-x", "nn:1,", "2852039166:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		o := hdfs.NewOpener(hdfs.Options{})
		c, err := o.Parse(ufs.Spec{URI: "hdfs://" + host + "/d"})
		if err != nil {
			if !freshet.IsKind(err, freshet.KindInvalid) {
				t.Fatalf("%q: %v", host, err)
			}
			return
		}
		again, err := o.Parse(ufs.Spec{URI: c.Authority + "/d"})
		if err != nil || again.Authority != c.Authority {
			t.Fatalf("%q is %q, which is %q, %v", host, c.Authority, again.Authority, err)
		}
	})
}
