BEGIN{FS=":"}{sum+=$3;name[NR]=toupper($1)}END{asort(name);for(i in name)print i,name[i];printf "%.3f %s\n",sum/NR,strftime("%Y",0,1);print gensub(/(.)(.)/,"\\2\\1","g","abcd")}
