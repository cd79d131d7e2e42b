# Packs directories of the system in each format and with each compression, and unpacks them again.
cd /tmp || exit 1
options='--sort=name --mtime=2026-01-01 --owner=0 --group=0 --numeric-owner'
for format in gnu oldgnu pax ustar v7; do
  tar $options --format=$format --pax-option=delete=atime,delete=ctime -cf $format.tar -C / usr/share/perl/5.36.0/Math etc bin 2>/dev/null ||
    tar $options --format=$format -cf $format.tar -C / usr/share/perl/5.36.0/Math etc bin
  sha256sum $format.tar
  tar -tvf $format.tar | sha256sum
  mkdir $format && tar -xf $format.tar -C $format
  diff -r --no-dereference $format/usr/share/perl/5.36.0/Math /usr/share/perl/5.36.0/Math && echo "$format is equal"
  tar -df $format.tar -C $format && echo "$format does not differ"
  rm -r $format
done
for compression in gzip bzip2 xz; do
  tar $options --$compression -cf packed -C / etc usr/share/perl/5.36.0/Math
  sha256sum packed
  tar -xf packed -O | sha256sum
done
truncate -s 40M sparse && printf x | dd of=sparse bs=1 seek=20000000 conv=notrunc status=none
tar --sparse $options -cf sparse.tar sparse && sha256sum sparse.tar
mkdir out && tar -xf sparse.tar -C out && cmp sparse out/sparse && du -k out/sparse | cut -f1
tar --list -f /etc/passwd
rm -rf /tmp/*
