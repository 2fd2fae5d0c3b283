package hdfs

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	lib "github.com/colinmarc/hdfs/v2"
	"github.com/colinmarc/hdfs/v2/hadoopconf"
	krb "github.com/jcmturner/gokrb5/v8/client"

	"github.com/freshet-io/freshet/ufs"
)

// conf is Hadoop's own configuration; nil without the option hadoop_conf.
type conf struct {
	dir    string
	values hadoopconf.HadoopConf
}

func loadConf(dir string) (conf, error) {
	if dir == "" {
		return conf{}, nil
	}
	if !filepath.IsAbs(dir) {
		return conf{}, fmt.Errorf("option 'hadoop_conf': %q is not an absolute path", dir)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return conf{}, fmt.Errorf("option 'hadoop_conf': %s is not a directory that can be read", dir)
	}
	values, err := hadoopconf.Load(dir)
	switch {
	case err != nil:
		return conf{}, fmt.Errorf("option 'hadoop_conf': %w", err)
	case values == nil:
		return conf{}, fmt.Errorf("option 'hadoop_conf': neither core-site.xml nor hdfs-site.xml is in %s", dir)
	}
	for name, value := range values {
		values[name] = strings.TrimSpace(value)
	}
	return conf{dir: dir, values: values}, nil
}

// addresses returns the NameNodes that a names: itself, or a nameservice in the
// configuration, or a host with the usual port.
func (c conf) addresses(a authority) ([]string, error) {
	if a.name == "" {
		return a.addresses, nil
	}
	ids := c.values["dfs.ha.namenodes."+a.name]
	var found []string
	for id := range strings.SplitSeq(ids, ",") {
		name := "dfs.namenode.rpc-address." + a.name
		if id = strings.TrimSpace(id); id != "" {
			name += "." + id
		}
		value := c.values[name]
		if value == "" && ids != "" {
			return nil, fmt.Errorf("%s has no property %s for the nameservice %s", c.dir, name, a.name)
		}
		if value != "" {
			address, err := parseAddress(value)
			if err != nil {
				return nil, fmt.Errorf("property %s: %w", name, err)
			}
			found = append(found, address)
		}
	}
	if len(found) == 0 {
		found = []string{net.JoinHostPort(strings.ToLower(a.name), strconv.Itoa(defaultPort))}
	}
	if len(found) > maxNameNodes {
		return nil, fmt.Errorf("more than %d NameNodes", maxNameNodes)
	}
	return found, nil
}

// clientOptions returns the library's settings: the mount's options before those
// of the configuration.
func (c conf) clientOptions(v ufs.Values) (lib.ClientOptions, error) {
	var opts lib.ClientOptions
	if c.values != nil {
		settings := hadoopconf.HadoopConf{}
		for name, value := range c.values {
			if !strings.Contains(name, "fs.default") { // the library panics on one that is no URI
				settings[name] = value
			}
		}
		opts = lib.ClientOptionsFromConf(settings)
	}
	if v.Has(optHostname) {
		opts.UseDatanodeHostname = v.Bool(optHostname)
	}
	if text := v.Text(optProtection); text != "" {
		opts.DataTransferProtection = text
	}
	if text := v.Text(optSPN); text != "" {
		opts.KerberosServicePrincipleName = text
	}
	if opts.KerberosServicePrincipleName == "" {
		opts.KerberosServicePrincipleName = "nn/_HOST"
	}
	if opts.KerberosClient != nil && v.Text(optPrincipal) == "" {
		return opts, errors.New("hadoop_conf asks for Kerberos; set options kerberos_principal and kerberos_keytab")
	}
	opts.Addresses, opts.KerberosClient = nil, (*krb.Client)(nil)
	return opts, nil
}
