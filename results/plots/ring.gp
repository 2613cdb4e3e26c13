# A ring of processes over one process (or over the same ring without delay), from results/ring.csv alone (make plots).
set terminal svg size 1000,700 dynamic font "sans,12"
set output "results/plots/ring.svg"
set datafile separator ","
set title "prima: rate in a ring of single-thread processes on one machine, over one such process (* over the same ring without delay)" noenhanced font ",11"
set style data histograms
set style histogram errorbars gap 1 linewidth 1
set style fill solid 0.8
set ylabel "ratio (median, least and most of the pairs)"
set yrange [0:2.2]
set xtics rotate by 90 right noenhanced font ",9"
set bmargin 15
set grid ytics
set key top right
set datafile missing NaN
name(i) = sprintf("%s %s x%s, %s dev. x %s, %s, %s in flight, %s ms, %s %s%s", strcol(13), strcol(9), strcol(14), strcol(6), strcol(7), \
                  strcol(10), strcol(15), strcol(12), strcol(11), strlen(strcol(16)) ? "chunk ".strcol(16) : "", strcol(18) eq "no delay" ? " *" : "")
rate(c) = strcol(13) eq "hop" ? NaN : column(c)
peer(c) = strlen(strcol(c)) ? column(c) : NaN
plot "results/ring.csv" every ::1 using (rate(21)):(rate(22)):(rate(23)):xtic(name(0)) title "prima" lc rgb "#3465a4", \
     "" every ::1 using (peer(25)):(peer(25)):(peer(25)) title "prima.cpp" lc rgb "#cc0000", \
     "" every ::1 using (peer(26)):(peer(26)):(peer(26)) title "dllama (tensor parallel)" lc rgb "#edd400"
