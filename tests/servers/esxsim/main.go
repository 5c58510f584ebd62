// esxsim is a vSphere endpoint for tests: the simulator of Debian's golang-github-vmware-govmomi-dev behind TLS,
// with a front (front.go) that adds what the simulator leaves out: sessions that end, injected faults, slow and lost
// answers. It listens on loopback only and has no other use.
//
//	GOPATH=/usr/share/gocode GO111MODULE=off go build -o esxsim .
//
// The certificate is made anew at each start and written to -cert as PEM before the port opens.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// certificate makes a key and a self-signed certificate for loopback, and writes the latter to path.
func certificate(path string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "esxsim"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(err)
	check(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func model(mode string, hosts, machines int) *simulator.Model {
	switch mode {
	case "vcenter":
		m := simulator.VPX()
		m.Host, m.Cluster, m.Machine, m.Datastore = hosts, 0, machines, 1
		return m
	case "cluster":
		m := simulator.VPX()
		m.Host, m.Cluster, m.ClusterHost, m.Machine, m.Datastore, m.Folder, m.Pool = 0, 1, hosts, machines, 1, 1, 1
		return m
	}
	m := simulator.ESX()
	m.Machine, m.Datastore = machines, 1
	return m
}

func main() {
	mode := flag.String("mode", "esxi", "esxi, vcenter (hosts on their own) or cluster (hosts of one cluster, in folders)")
	listen := flag.String("listen", "127.0.0.1:0", "address")
	dir := flag.String("dir", "", "an existing folder for datastores")
	cert := flag.String("cert", "", "where to write the certificate")
	user := flag.String("user", "root", "login name")
	password := flag.String("password", "secret", "password")
	hosts := flag.Int("hosts", 2, "hosts of a vCenter")
	machines := flag.Int("machines", 2, "machines a host")
	ours := flag.Bool("ours", false, "they bear the driver's mark; else all of them are somebody else's")
	flag.Parse()
	log.SetOutput(io.Discard)

	check(os.Setenv("TMPDIR", *dir)) // the simulator makes its datastores there
	m := model(*mode, *hosts, *machines)
	check(m.Create())
	for _, vm := range simulator.Map.All("VirtualMachine") {
		config := vm.(*simulator.VirtualMachine).Config
		if *ours {
			mark := &types.OptionValue{Key: "stratograph.id", Value: config.InstanceUuid}
			config.ExtraConfig = append(config.ExtraConfig, mark)
		}
		versioned(vm.Reference(), nil)
	}
	m.Service.RegisterEndpoints = true
	own := certificate(*cert)
	listener, err := net.Listen("tcp", *listen)
	check(err)
	m.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(*user, *password)}
	inner := m.Service.NewServer() // registers the handlers; its own plain port stays unused
	m.Service.Listen.Host, m.Service.Listen.Scheme = listener.Addr().String(), "https"
	simulator.Map.SessionManager().ServiceHostName = listener.Addr().String()

	server := &http.Server{
		Handler:   newFront(m.Service.ServeMux, *user, *password, own),
		ErrorLog:  log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS12},
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	_ = server.Close()
	inner.Close()
	m.Remove()
}
